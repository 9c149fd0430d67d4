/// Why the metastore cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read the catalog")]
    Store(#[from] storage::Error),
}
