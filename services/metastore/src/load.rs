//! Makes the state from the rows of the catalog.

use std::time::Duration;

use catalog::rows::{
    Block, Dataset, DatasetSummary, Dead, Dedup, Deletion, Founding, Job, JobProgress, Log, Resignation, Row,
    Segment,
};
use catalog::{Catalog, View};
use hashbrown::HashMap;
use model::BlockId;

use crate::config::Config;
use crate::deletion_lifecycle::unreadable_deletion;
use crate::error::OpenError;
use crate::state::{JobState, State};

/// The catalog as its owner opened it, or as a viewer reads it.
pub(crate) enum Source<'a> {
    Owned(&'a dyn Catalog),
    Viewed(&'a dyn View),
}

/// The state that the rows of `catalog` describe.
pub(crate) async fn load(
    catalog: Source<'_>,
    config: &Config,
    is_alone: bool,
    now: Duration,
) -> Result<State, OpenError> {
    let mut state = State::new(config);
    state.version = match catalog {
        Source::Owned(catalog) => catalog.version(),
        Source::Viewed(view) => view.version(),
    };
    for row in rows::<Deletion>(&catalog).await? {
        let (number, version) = (row.number, state.version);
        state.deletions.load(row, version).map_err(|reason| unreadable_deletion(number, reason))?;
    }
    for row in rows::<Log>(&catalog).await? {
        state.load_log(row, now);
    }
    for row in rows::<Dedup>(&catalog).await? {
        state.load_keys(&row);
    }
    for row in rows::<Segment>(&catalog).await? {
        state.add_segment(&row, true);
    }
    let mut datasets: HashMap<BlockId, Vec<DatasetSummary>> = HashMap::new();
    for row in rows::<Dataset>(&catalog).await? {
        state.lacks_datasets |= !row.has_own_key;
        datasets.entry(row.block).or_default().push(row.summary);
    }
    for row in rows::<Block>(&catalog).await? {
        let datasets = datasets.remove(&row.id).unwrap_or_default();
        state.add_block(&row, datasets);
    }
    for row in rows::<Job>(&catalog).await? {
        // If this process is alone, the compactor of an open attempt ended with the process before.
        let due = if is_alone { Duration::ZERO } else { now + config.attempt_time.get() };
        if let JobProgress::Working { work, .. } = &row.state {
            for key in &work.inputs {
                state.claim(key, row.id);
            }
        }
        state.insert_job(JobState { row, due });
    }
    for row in rows::<Dead>(&catalog).await? {
        state.add_dead(row);
    }
    state.founded_millis = rows::<Founding>(&catalog).await?.first().map(|row| row.millis);
    Ok(state)
}

/// Whether the previous owner resigned: it stopped answering before its last commit.
pub(crate) async fn has_resigned(catalog: &dyn Catalog) -> Result<bool, OpenError> {
    let resigned = rows::<Resignation>(&Source::Owned(catalog)).await?;
    Ok(resigned.iter().any(|row| row.epoch + 1 == catalog.epoch()))
}

async fn rows<R: Row>(catalog: &Source<'_>) -> Result<Vec<R>, OpenError> {
    let read = match catalog {
        Source::Owned(catalog) => catalog.range(R::KIND.keys()).await?,
        Source::Viewed(view) => view.range(R::KIND.keys()).await?,
    };
    let rows = read.iter().map(|(key, value)| {
        R::read(key, value).map_err(|source| {
            let key = key.escape_ascii().to_string();
            OpenError::Row { key, source }
        })
    });
    rows.collect()
}
