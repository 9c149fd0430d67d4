//! `pyrograph block`: the directory of a segment or block.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use storage::{Key, Store};

use super::Error;
use super::client::print;
use super::text::inert;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show origin, datasets, sizes and profile types of a segment or block.
    Inspect(Inspect),
}

#[derive(clap::Args)]
pub(super) struct Inspect {
    /// A file below the storage directory, for example `data/block/anonymous/…`.
    file: PathBuf,
}

pub(super) async fn run(command: Command) -> Result<(), Error> {
    let Command::Inspect(arguments) = command;
    let bytes = std::fs::read(&arguments.file)
        .map_err(|e| format!("cannot read {}: {e}", arguments.file.display()))?;
    let length = bytes.len() as u64;
    let store = Store::in_memory();
    let key = Key::from_text("inspected");
    store.settle_create(&key, bytes.into()).await?;
    let block = block::Reader::open(&store, &key, length, &block::Cache::new(64 << 20)).await?;
    let directory = block.directory();
    let mut out = format!(
        "{}: {length} bytes, {:?}, created {} ms after 1970, {} push keys\n",
        arguments.file.display(),
        directory.origin,
        directory.created_millis,
        directory.keys.len()
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "tenant",
        "service",
        "profiles",
        "rows",
        "index B",
        "symbols B",
        "tree B",
        "minutes",
        "types",
    ]);
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for dataset in &directory.datasets {
        let types: Vec<String> =
            dataset.profile_types.iter().map(|t| inert(&t.to_string()).into_owned()).collect();
        table.add_row([
            dataset.tenant.to_string(),
            inert(&dataset.service).into_owned(),
            dataset.profiles.to_string(),
            (dataset.rows.end - dataset.rows.start).to_string(),
            dataset.index.bytes.to_string(),
            dataset.symbols.bytes.to_string(),
            dataset.tree.map(|t| t.bytes.to_string()).unwrap_or_default(),
            format!("{:.1}", (dataset.times.last - dataset.times.first) as f64 / 6e10),
            types.join("\n"),
        ]);
    }
    out.push_str(&format!("{table}\n"));
    print(out.as_bytes())
}
