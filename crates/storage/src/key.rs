//! Every object key of the bucket is built and parsed in this file.
//!
//! | key | content |
//! |---|---|
//! | `cluster` | cluster id, name and layout version |
//! | `probe/<random>` | a test object of a start; deleted at once |
//! | `log/<writer>/<seq, 12 digits>` | a segment or a seal |
//! | `block/<tenant>/<place>/<job>-<attempt>-<part>` | a block; [`Place`] is its level, window and shard |
//! | `publish/<day>/<job>` | record of one publish |
//! | `delete/<tenant>/<n, 12 digits>` | a deletion; `….done` once it is finished |
//! | `catalog/<incarnation, 12 digits>/ready` | marks the catalog of this number as complete |
//! | `catalog/<incarnation>/commit/<slot, 12 digits>` | one commit |
//! | `catalog/<incarnation>/snapshot/<slot, 12 digits>` | a checkpoint: all rows as of that commit |

use std::fmt;

use model::{BlockId, JobId, Shard, TenantId, Window, WriterId};

/// The first part of every key but `cluster`.
pub(crate) const FOLDERS: &[&str] = &["probe", "log", "block", "publish", "delete", "catalog"];
/// Folders of small objects that deleting data needs.
const SMALL_FOLDERS: &[&str] = &["publish", "delete", "catalog"];
/// Longest seal, the object that ends a log; every segment is longer.
const SEAL_BYTES_MAX: usize = 256;

/// Whether an object of `bytes` bytes at `key` is one that has to be written before data can be deleted: rows of the
/// catalog, records, deletions, seals. `key` is without the configured prefix.
pub(crate) fn is_bookkeeping(key: &str, bytes: usize) -> bool {
    match key.split_once('/') {
        Some(("log", _)) => bytes <= SEAL_BYTES_MAX,
        Some((folder, _)) => SMALL_FOLDERS.contains(&folder),
        None => false,
    }
}

/// The folder of a block within those of its tenant: `<level>-<start in Unix seconds>-<length in seconds>`, and
/// `-s<bits>.<number>` after it unless the shard is of all services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub level: u8,
    pub window: Window,
    pub shard: Shard,
}

/// A file of one incarnation of the catalog; commits and checkpoints are numbered by slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CatalogFile {
    /// The incarnation is complete.
    Ready,
    Commit(u64),
    /// All rows as of the commit of this slot. Called `snapshot` in keys.
    Checkpoint(u64),
}

/// The name of one object, relative to the configured prefix.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// A key from a listing or a row, taken as it is.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn cluster() -> Self {
        Self("cluster".into())
    }

    pub fn probe(random: u128) -> Self {
        Self(format!("probe/{random:032x}"))
    }

    pub fn log_slot(writer: WriterId, seq: u64) -> Self {
        Self(format!("log/{writer}/{seq:012}"))
    }

    pub fn block(tenant: &TenantId, place: Place, id: BlockId) -> Self {
        let tenant = percent_encode(tenant.as_str());
        let BlockId { job, attempt, part } = id;
        Self(format!("block/{tenant}/{place}/{job}-{attempt}-{part}"))
    }

    /// The folder of a tenant's blocks, to be listed.
    pub fn blocks_of(tenant: &TenantId) -> String {
        format!("block/{}", percent_encode(tenant.as_str()))
    }

    /// The identity of the block of a `block/` key; `None` for any other key.
    pub fn parse_block(&self) -> Option<BlockId> {
        let (_, name) = self.0.strip_prefix("block/")?.rsplit_once('/')?;
        let mut fields = name.split('-');
        let id = BlockId {
            job: fields.next()?.parse().ok()?,
            attempt: fields.next()?.parse().ok()?,
            part: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(id)
    }

    /// The tenant of a `block/` key; `None` for any other key.
    pub fn parse_block_tenant(&self) -> Option<TenantId> {
        let (tenant, _) = self.0.strip_prefix("block/")?.split_once('/')?;
        TenantId::parse(&percent_decode(tenant)?).ok()
    }

    /// The place of the block of a `block/` key; `None` for any other key.
    pub fn parse_block_place(&self) -> Option<Place> {
        let (place, _) = self.0.strip_prefix("block/")?.split_once('/')?.1.split_once('/')?;
        let (place, shard) = match place.rsplit_once("-s") {
            Some((place, shard)) => {
                let (bits, number) = shard.split_once('.')?;
                (place, Shard { bits: bits.parse().ok()?, number: number.parse().ok()? })
            }
            None => (place, Shard::ALL),
        };
        let (level, window) = place.split_once('-')?;
        // A start before 1970 has a sign.
        let (start, length) = window.rsplit_once('-')?;
        let window = Window { start: start.parse().ok()?, length: length.parse().ok()? };
        Some(Place { level: level.parse().ok()?, window, shard })
    }

    /// The job of a `publish/` key; `None` for any other key.
    pub fn parse_publish(&self) -> Option<JobId> {
        self.0.strip_prefix("publish/")?.split_once('/')?.1.parse().ok()
    }

    /// `day` is days since the Unix epoch.
    pub fn publish(day: i64, job: JobId) -> Self {
        Self(format!("publish/{day}/{job}"))
    }

    /// A deletion, or its remainder once it is finished.
    pub fn deletion(tenant: &TenantId, number: u64, is_done: bool) -> Self {
        let tenant = percent_encode(tenant.as_str());
        Self(format!("delete/{tenant}/{number:012}{}", if is_done { ".done" } else { "" }))
    }

    /// The tenant and number of a `delete/` key, and whether the deletion is finished; `None` for any other key.
    pub fn parse_deletion(&self) -> Option<(TenantId, u64, bool)> {
        let (tenant, name) = self.0.strip_prefix("delete/")?.split_once('/')?;
        let (number, is_done) = match name.strip_suffix(".done") {
            Some(number) => (number, true),
            None => (name, false),
        };
        Some((TenantId::parse(&percent_decode(tenant)?).ok()?, number.parse().ok()?, is_done))
    }

    /// A file of the catalog engine. Incarnations number the catalogs of a bucket, of which the newest ready one
    /// counts.
    pub fn catalog(incarnation: u64, file: CatalogFile) -> Self {
        Self(match file {
            CatalogFile::Ready => format!("catalog/{incarnation:012}/ready"),
            CatalogFile::Commit(slot) => format!("catalog/{incarnation:012}/commit/{slot:012}"),
            CatalogFile::Checkpoint(slot) => format!("catalog/{incarnation:012}/snapshot/{slot:012}"),
        })
    }

    /// The incarnation and the file of a `catalog/` key; `None` for any other key.
    pub fn parse_catalog(&self) -> Option<(u64, CatalogFile)> {
        let (incarnation, name) = self.0.strip_prefix("catalog/")?.split_once('/')?;
        let file = match name.split_once('/') {
            None if name == "ready" => CatalogFile::Ready,
            Some(("commit", slot)) => CatalogFile::Commit(slot.parse().ok()?),
            Some(("snapshot", slot)) => CatalogFile::Checkpoint(slot.parse().ok()?),
            _ => return None,
        };
        Some((incarnation.parse().ok()?, file))
    }

    /// The id of the log or job of an object, or of a folder of `log/`; `None` for any other key.
    pub fn id(&self) -> Option<u128> {
        let writer = || self.parse_log_folder().or(self.parse_log_slot().map(|(writer, _)| writer));
        let job = || self.parse_publish().or(self.parse_block().map(|block| block.job));
        writer().map(|writer| writer.0).or_else(|| job().map(|job| job.0))
    }

    /// The writer of a folder of `log/`; `None` for any other key.
    pub fn parse_log_folder(&self) -> Option<WriterId> {
        self.0.strip_prefix("log/")?.parse().ok()
    }

    /// The writer and slot of a `log/` key; `None` for any other key.
    pub fn parse_log_slot(&self) -> Option<(WriterId, u64)> {
        let (writer, seq) = self.0.strip_prefix("log/")?.split_once('/')?;
        Some((writer.parse().ok()?, seq.parse().ok()?))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, window, shard } = self;
        write!(f, "{level}-{}-{}", window.start, window.length)?;
        if *shard != Shard::ALL {
            write!(f, "-s{}.{}", shard.bits, shard.number)?;
        }
        Ok(())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        out.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use model::DAY;

    use super::*;

    #[test]
    fn a_log_slot_reads_back() {
        let key = Key::log_slot(WriterId(7), 42);
        assert_eq!(key.as_str(), "log/00000000000000000000000000000007/000000000042");
        assert_eq!(key.parse_log_slot(), Some((WriterId(7), 42)));
        assert_eq!(Key::cluster().parse_log_slot(), None);
    }

    #[test]
    fn tenants_are_percent_encoded() {
        let tenant = TenantId::parse("a*b").expect("valid");
        let window = Window { start: 0, length: 300 };
        let place = Place { level: 1, window, shard: Shard::ALL };
        let key = Key::block(&tenant, place, BlockId { job: JobId(1), attempt: 1, part: 0 });
        assert!(key.as_str().starts_with("block/a%2Ab/1-0-300/"));
        assert_eq!(key.parse_block_tenant(), Some(tenant));
        assert_eq!(Key::from_text("block/a%2/1-0-300/x").parse_block_tenant(), None);
    }

    #[test]
    fn a_block_reads_back() {
        let tenant = TenantId::parse("a").expect("valid");
        let id = BlockId { job: JobId(9), attempt: 3, part: 2 };
        let check = |level: u8, window: Window, shard: Shard, expected: &str| {
            let place = Place { level, window, shard };
            let key = Key::block(&tenant, place, id);
            let folder = key.as_str().strip_prefix("block/a/").and_then(|rest| rest.split('/').next());
            assert_eq!(folder, Some(expected));
            assert_eq!(key.parse_block(), Some(id));
            assert_eq!(key.parse_block_tenant().as_ref(), Some(&tenant));
            assert_eq!(key.parse_block_place(), Some(place));
        };
        let sharded = Shard { bits: 4, number: 11 };
        check(1, Window { start: 0, length: 300 }, Shard::ALL, "1-0-300");
        check(1, Window { start: 0, length: 300 }, sharded, "1-0-300-s4.11");
        check(3, Window { start: -DAY, length: DAY }, Shard::ALL, "3--86400-86400");
        check(3, Window { start: -DAY, length: DAY }, sharded, "3--86400-86400-s4.11");
        assert_eq!(Key::cluster().parse_block(), None);
        assert_eq!(Key::cluster().parse_block_tenant(), None);
        assert_eq!(Key::cluster().parse_block_place(), None);
    }

    #[test]
    fn a_deletion_reads_back() {
        let tenant = TenantId::parse("a*b").expect("valid");
        for is_done in [false, true] {
            let key = Key::deletion(&tenant, 7, is_done);
            assert!(key.as_str().starts_with("delete/a%2Ab/000000000007"));
            assert_eq!(key.parse_deletion(), Some((tenant.clone(), 7, is_done)));
        }
        assert_eq!(Key::cluster().parse_deletion(), None);
    }

    #[test]
    fn bookkeeping_is_recognised_by_folder_and_size() {
        let slot = Key::log_slot(WriterId(7), 42);
        assert!(is_bookkeeping(slot.as_str(), 48) && !is_bookkeeping(slot.as_str(), 1_000));
        assert!(is_bookkeeping(Key::catalog(1, CatalogFile::Commit(7)).as_str(), 1 << 20));
        assert!(!is_bookkeeping("block/a/1-0-300/x", 10) && !is_bookkeeping("cluster", 10));
    }

    #[test]
    fn a_file_of_the_catalog_reads_back() {
        let check = |file: CatalogFile, expected: &str| {
            let key = Key::catalog(7, file);
            assert_eq!(key.as_str(), expected);
            assert_eq!(key.parse_catalog(), Some((7, file)));
        };
        check(CatalogFile::Ready, "catalog/000000000007/ready");
        check(CatalogFile::Commit(42), "catalog/000000000007/commit/000000000042");
        check(CatalogFile::Checkpoint(42), "catalog/000000000007/snapshot/000000000042");
        for other in ["catalog/7/other", "catalog/7/commit/x", "catalog/7", "cluster"] {
            assert_eq!(Key::from_text(other).parse_catalog(), None, "{other}");
        }
    }

    #[test]
    fn a_publish_record_names_its_job() {
        assert_eq!(Key::publish(-3, JobId(5)).parse_publish(), Some(JobId(5)));
        assert_eq!(Key::cluster().parse_publish(), None);
    }
}
