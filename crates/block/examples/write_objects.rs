//! Writes a segment, the block that it merges into, and the expected sums of both.
//!
//! `write_objects DIR` creates `segment.parquet`, `block.parquet` and `expected.json`:
//! `{"<tenant>/<service>/<profile type>": sum}`. `tests/open_data/read_block.py` compares.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use block::{Head, MergeInput, MergeOptions, Origin, merge};
use clock::Pool;
use model::{JobId, WriterId};
use support::{Program, Random, Shape, item, open, sums_of_items};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: write_objects DIR")?;
    let dir = Path::new(&dir);
    let program = Program::small(1);
    let mut random = Random::new(2);
    let items: Vec<_> = (0..60)
        .map(|i| {
            let shape = Shape {
                tenant: "anonymous".into(),
                service: format!("service-{}", i % 3),
                pod: i % 5,
                samples: 50,
                types: 1 + i % 4,
                time_nanos: (1_700_000_000 + i as i64) * 1_000_000_000,
                spans: i % 7 == 0,
            };
            item(&program, &mut random, &shape)
        })
        .collect();
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (row, values) in sums_of_items(&items) {
        for (column, value) in values.iter().enumerate() {
            let name = format!("{}/{}/{}", row.tenant, row.service, row.schema.profile_type(column));
            *expected.entry(name).or_default() += value;
        }
    }
    let mut head = Head::new();
    for item in &items {
        head.append(item);
    }
    let segment = head.cut().encode(Origin::Segment { writer: WriterId(1), seq: 0 }, 0)?;
    std::fs::write(dir.join("segment.parquet"), &segment.bytes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let options = MergeOptions {
        job: JobId(1),
        attempt: 1,
        level: 1,
        created_millis: 0,
        windows: Vec::new(),
        shard_bits: 0,
        memory: Default::default(),
    };
    let outputs = runtime.block_on(async {
        let block = open(segment.bytes).await?;
        merge(vec![MergeInput::whole(block)], &options, &Pool::inline()).await
    })?;
    let [output] = outputs.as_slice() else {
        return Err("one tenant and one day must make one block".into());
    };
    std::fs::write(dir.join("block.parquet"), &output.encoded.bytes)?;
    std::fs::write(dir.join("expected.json"), serde_json::to_string_pretty(&expected)?)?;
    Ok(())
}
