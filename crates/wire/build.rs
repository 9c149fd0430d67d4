//! Compiles `proto/` without a system protoc.

use std::path::Path;

use prost::Message;

const ROOT: &str = "../../proto";

const FILES: &[&str] = &[
    "capabilities/v1/feature_flags.proto",
    "google/v1/profile.proto",
    "grpc/health/v1/health.proto",
    "push/v1/push.proto",
    "querier/v1/querier.proto",
    "settings/v1/settings.proto",
    "types/v1/types.proto",
    "version/v1/version.proto",
];

/// The messages between roles; not public, so not among the descriptors.
const FILES_BETWEEN_ROLES: &[&str] = &[
    "pyrograph/ingester/v1/ingester.proto",
    "pyrograph/leaf/v1/leaf.proto",
    "pyrograph/metastore/v1/metastore.proto",
    "pyrograph/rpc/v1/rpc.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let descriptors = protox::compile(FILES, [ROOT])?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        // Large fields that are passed on unchanged; `Bytes` shares the request's buffer.
        .bytes(".push.v1.RawSample.raw_profile")
        .bytes(".querier.v1.SelectMergeStacktracesResponse.tree")
        .bytes(".querier.v1.SelectMergeSpanProfileResponse.tree")
        .compile_fds(descriptors)?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .bytes(".pyrograph")
        .compile_fds(protox::compile(FILES_BETWEEN_ROLES, [ROOT])?)?;
    Ok(())
}
