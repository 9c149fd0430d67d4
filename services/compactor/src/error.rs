use storage::Key;

/// Why an attempt of a job was not finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot merge")]
    Merge(#[from] block::Error),
    #[error("cannot write an output")]
    Store(#[from] storage::Error),
    #[error("output {0} exists with other bytes")]
    Taken(Key),
    #[error("cannot publish")]
    Publish(#[from] rpc::Error),
}

impl Error {
    /// Whether the inputs are to blame. Anything else is worth trying again as it is.
    pub(crate) fn is_of_inputs(&self) -> bool {
        match self {
            Self::Merge(block::Error::Storage(storage::Error::NotFound(_))) => true,
            // Another compactor may have more memory.
            Self::Merge(block::Error::Storage(_) | block::Error::Memory { .. })
            | Self::Store(_)
            | Self::Publish(_) => false,
            Self::Merge(_) | Self::Taken(_) => true,
        }
    }

    /// The whole chain of causes, for where only text can go.
    pub(crate) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
