//! The conformance suite of engines: an engine is complete when [`check`] passes.

use std::ops::Range;

use bytes::Bytes;

use crate::{Batch, Catalog, Engine, Error};

/// Runs the whole suite; each call of `empty` returns an engine over an empty store.
///
/// # Errors
/// The requirement that does not hold.
pub async fn check<E: Engine>(empty: impl Fn() -> E) -> Result<(), String> {
    a_batch_is_read_back_in_order(&empty()).await?;
    versions_and_epochs_rise(&empty()).await?;
    a_successor_reads_everything(&empty()).await?;
    an_earlier_owner_stays_fenced(&empty()).await?;
    a_view_follows_whole_commits(&empty()).await?;
    deleted_rows_are_in_no_new_file(&empty()).await?;
    many_commits_survive_maintenance(&empty()).await
}

async fn deleted_rows_are_in_no_new_file(engine: &dyn Engine) -> Result<(), String> {
    let catalog = open(engine).await?;
    commit(&*catalog, put("a", "1")).await?;
    commit(&*catalog, put("b", "2")).await?;
    let mut batch = Batch::default();
    batch.delete(&b"a"[..]);
    let version = commit(&*catalog, batch).await?;
    ensure(!catalog.has_forgotten(version), "commits hold the rows that they put")?;
    catalog.compact(version).await.map_err(text)?;
    catalog.compact(version).await.map_err(text)?;
    ensure(rows(&*catalog).await? == ["b=2"], "compacting changes no row")?;
    drop(catalog);
    ensure(rows(&*open(engine).await?).await? == ["b=2"], "a successor reads the compacted rows")
}

async fn a_batch_is_read_back_in_order(engine: &dyn Engine) -> Result<(), String> {
    let catalog = open(engine).await?;
    let mut batch = Batch::default();
    batch.put(&b"b"[..], &b"2"[..]);
    batch.put(&b"a"[..], &b"1"[..]);
    batch.put(&b"c"[..], &b"3"[..]);
    batch.put(&b"b"[..], &b"4"[..]);
    batch.delete(&b"c"[..]);
    batch.delete(&b"never"[..]);
    commit(&*catalog, batch).await?;
    ensure(rows(&*catalog).await? == ["a=1", "b=4"], "later changes win, and rows are sorted")?;
    let some = catalog.range(range(b"a", b"b")).await.map_err(text)?;
    ensure(some.len() == 1, "a range excludes its end")?;
    let none = catalog.range(range(b"b", b"a")).await.map_err(text)?;
    ensure(none.is_empty(), "a range that ends before it starts is empty")
}

async fn versions_and_epochs_rise(engine: &dyn Engine) -> Result<(), String> {
    let first = open(engine).await?;
    let before = first.version();
    let one = commit(&*first, put("a", "1")).await?;
    let two = commit(&*first, put("a", "2")).await?;
    ensure(before < one && one < two && two == first.version(), "every commit raises the version")?;
    let second = open(engine).await?;
    ensure(second.epoch() > first.epoch(), "every opening raises the epoch")?;
    ensure(second.version() >= two, "an opening does not lower the version")
}

async fn a_successor_reads_everything(engine: &dyn Engine) -> Result<(), String> {
    let first = open(engine).await?;
    commit(&*first, put("a", "1")).await?;
    commit(&*first, put("b", "2")).await?;
    let second = open(engine).await?;
    ensure(rows(&*second).await? == ["a=1", "b=2"], "a successor reads every commit")
}

async fn an_earlier_owner_stays_fenced(engine: &dyn Engine) -> Result<(), String> {
    let first = open(engine).await?;
    commit(&*first, put("a", "1")).await?;
    ensure(first.check().await.is_ok(), "the check of the owner passes")?;
    let second = open(engine).await?;
    let fenced = |result: Result<(), Error>| matches!(result, Err(Error::Fenced { .. }));
    ensure(fenced(first.check().await), "the check of a fenced owner fails")?;
    for _ in 0..3 {
        let result = first.commit(put("a", "2")).await.map(|_| ());
        ensure(fenced(result), "a fenced owner commits nothing")?;
    }
    commit(&*second, put("b", "2")).await?;
    let third = open(engine).await?;
    for owner in [&first, &second] {
        let result = owner.commit(put("a", "3")).await.map(|_| ());
        ensure(fenced(result), "every earlier owner stays fenced")?;
    }
    ensure(rows(&*third).await? == ["a=1", "b=2"], "no change of a fenced owner is visible")
}

async fn a_view_follows_whole_commits(engine: &dyn Engine) -> Result<(), String> {
    let owner = open(engine).await?;
    commit(&*owner, put("a", "1")).await?;
    let mut view = engine.view().await.map_err(text)?;
    let before = view.version();
    commit(&*owner, put("b", "2")).await?;
    let seen = view.range(everything()).await.map_err(text)?;
    ensure(seen.len() == 1, "a view stays at its version")?;
    let later = view.refresh().await.map_err(text)?;
    ensure(before < later && later == owner.version(), "a refresh reaches the newest version")?;
    let seen = view.range(everything()).await.map_err(text)?;
    ensure(seen.len() == 2, "a refreshed view has the rows of its version")?;
    ensure(view.epoch() == owner.epoch(), "a view has the epoch of its version")?;
    ensure(view.committed_millis() > 0, "a view has the time of its version")?;
    ensure(owner.check().await.is_ok(), "a view does not fence the owner")
}

async fn many_commits_survive_maintenance(engine: &dyn Engine) -> Result<(), String> {
    let mut owner = open(engine).await?;
    for i in 0..1_000 {
        commit(&*owner, put(&format!("k{:03}", i % 100), &i.to_string())).await?;
        owner.maintain().await.map_err(text)?;
        if i % 170 == 169 {
            owner = open(engine).await?;
        }
    }
    let expected: Vec<String> = (0..100).map(|i| format!("k{i:03}={}", i + 900)).collect();
    ensure(rows(&*owner).await? == expected, "maintenance changes no row")?;
    let successor = open(engine).await?;
    ensure(rows(&*successor).await? == expected, "maintenance keeps every file that an opening needs")
}

async fn open(engine: &dyn Engine) -> Result<std::sync::Arc<dyn Catalog>, String> {
    engine.open().await.map_err(text)
}

async fn commit(catalog: &dyn Catalog, batch: Batch) -> Result<u64, String> {
    catalog.commit(batch).await.map_err(text)
}

async fn rows(catalog: &dyn Catalog) -> Result<Vec<String>, String> {
    let rows = catalog.range(everything()).await.map_err(text)?;
    let show = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(rows.iter().map(|(key, value)| format!("{}={}", show(key), show(value))).collect())
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.to_owned(), value.to_owned());
    batch
}

fn range(from: &'static [u8], to: &'static [u8]) -> Range<Bytes> {
    Bytes::from_static(from)..Bytes::from_static(to)
}

fn everything() -> Range<Bytes> {
    range(b"", b"\xff")
}

fn ensure(holds: bool, requirement: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("does not hold: {requirement}")) }
}

fn text(error: Error) -> String {
    format!("an operation failed: {error}")
}
