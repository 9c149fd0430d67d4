//! Names of flags: derived from the path of a value, or Pyroscope's name where that differs.

use serde_json::Value;

/// `(flag, path)` of each flag that is not the path with dashes. A path may have several flags.
const NAMES: &[(&str, &str)] = &[
    ("auth.multitenancy-enabled", "multitenancy_enabled"),
    ("log.level", "server.log_level"),
    ("log.format", "server.log_format"),
    ("server.http-conn-limit", "server.http_listen_conn_limit"),
    ("retention-period", "limits.retention_period"),
    ("storage.retention-period", "limits.retention_period"),
    ("distributor.ingestion-rate-limit-mb", "limits.ingestion_rate_mb"),
    ("distributor.ingestion-burst-size-mb", "limits.ingestion_burst_size_mb"),
    ("distributor.ingestion-body-limit-mb", "limits.ingestion_body_limit_mb"),
    ("ingester.max-global-series-per-tenant", "limits.max_global_series_per_tenant"),
    ("validation.max-length-label-name", "limits.max_label_name_length"),
    ("validation.max-length-label-value", "limits.max_label_value_length"),
    ("validation.max-label-names-per-series", "limits.max_label_names_per_series"),
    ("validation.max-sessions-per-series", "limits.max_sessions_per_series"),
    ("validation.enforce-labels-order", "limits.enforce_labels_order"),
    // The name that this server had for it.
    ("limits.enforce-labels-order", "limits.enforce_labels_order"),
    ("validation.disable-label-sanitization", "limits.disable_label_sanitization"),
    ("validation.max-profile-size-bytes", "limits.max_profile_size_bytes"),
    ("validation.max-profile-stacktrace-samples", "limits.max_profile_stacktrace_samples"),
    ("validation.max-profile-stacktrace-sample-labels", "limits.max_profile_stacktrace_sample_labels"),
    ("validation.max-profile-stacktrace-depth", "limits.max_profile_stacktrace_depth"),
    ("validation.max-profile-symbol-value-length", "limits.max_profile_symbol_value_length"),
    ("validation.reject-older-than", "limits.reject_older_than"),
    ("validation.reject-newer-than", "limits.reject_newer_than"),
    ("querier.max-query-length", "limits.max_query_length"),
    ("querier.max-query-lookback", "limits.max_query_lookback"),
    ("querier.max-flamegraph-nodes-default", "limits.max_flamegraph_nodes_default"),
    ("querier.max-flamegraph-nodes-max", "limits.max_flamegraph_nodes_max"),
    (
        "querier.max-flamegraph-nodes-on-select-merge-profile",
        "limits.max_flamegraph_nodes_on_select_merge_profile",
    ),
    // The name that this server had for it.
    (
        "limits.max-flamegraph-nodes-on-select-merge-profile",
        "limits.max_flamegraph_nodes_on_select_merge_profile",
    ),
    ("distributor.ingester-addresses", "peers.ingester_addresses"),
    ("querier.leaf-addresses", "peers.leaf_addresses"),
    ("metastore.address", "peers.metastore_address"),
    ("runtime-config.file", "runtime_config.file"),
    ("limits.per-tenant-override-config", "runtime_config.file"),
    ("runtime-config.reload-period", "runtime_config.period"),
    ("limits.per-tenant-override-period", "runtime_config.period"),
    ("memberlist.join", "memberlist.join_members"),
    ("memberlist.nodename", "memberlist.node_name"),
    ("segment-writer.segment-duration", "ingester.segment_duration"),
    ("storage.s3.max-idle-connections", "storage.s3.http.max_idle_connections_per_host"),
    ("storage.s3.max-idle-connections-per-host", "storage.s3.http.max_idle_connections_per_host"),
];

/// Pyroscope flags, and prefixes of such flags, without a meaning here. They are accepted with a warning, so that an
/// existing command line starts.
const IGNORED: &[&str] = &[
    "architecture.storage",
    "adaptive-placement",
    "admin-server",
    "async-ingest",
    "enable-query-backend",
    "embedded-grafana",
    "memberlist.abort-if-join-fails",
    "memberlist.cluster-label-verification-disabled",
    "memberlist.compression-enabled",
    "memberlist.dead-node-reclaim-time",
    "memberlist.gossip",
    "memberlist.leave-timeout",
    "memberlist.left-ingesters-timeout",
    "memberlist.max-join",
    "memberlist.message-history-buffer-bytes",
    "memberlist.min-join",
    "memberlist.packet",
    "memberlist.pullpush-interval",
    "memberlist.randomize-node-name",
    "memberlist.rejoin-interval",
    "memberlist.retransmit-factor",
    "memberlist.stream-timeout",
    "memberlist.tls",
    "memberlist.transport-debug",
    "metastore.raft",
    "metastore.data-dir",
    "overrides-exporter",
    "pyroscopedb",
    "query-backend",
    "query-frontend",
    "query-scheduler",
    "ring.store",
    "segment-writer.min-ready-duration",
    "store-gateway",
    "storage.azure.max-retries",
    "storage.s3.expect-continue-timeout",
    "storage.s3.http.idle-conn-timeout",
    "storage.s3.http.response-header-timeout",
    "storage.s3.max-connections-per-host",
    "storage.s3.signature-version",
    "storage.s3.tls-handshake-timeout",
    "tracing",
    "usage-stats",
    "write-path",
    "config.show_banner",
    "compactor.blocks-retention-period",
];

/// Ignored flags, each with the flag that has their purpose here.
const EQUIVALENTS: &[(&str, &str)] = &[
    ("compactor.blocks-retention-period", "retention-period"),
    ("metastore.data-dir", "storage.filesystem.dir"),
    ("pyroscopedb.data-path", "storage.filesystem.dir"),
];

/// Sections of Pyroscope's configuration file without a meaning here.
const IGNORED_SECTIONS: &[&str] = &[
    "adaptive_placement",
    "admin_server",
    "analytics",
    "architecture_storage",
    "embedded_grafana",
    "frontend",
    "frontend_worker",
    "overrides_exporter",
    "pyroscopedb",
    "query_backend",
    "query_scheduler",
    "segment_writer",
    "store_gateway",
    "symbolizer",
    "tenant_settings",
    "tracing",
];

/// Values whose flag may be given several times: each occurrence appends to a comma-separated list.
pub(super) const LISTS: &[&str] =
    &["memberlist.join_members", "server.allowed_hosts", "server.cors_allowed_origins"];

/// The flags that set the value at `path`.
pub(super) fn flags_of(path: &str) -> Vec<String> {
    let named: Vec<String> =
        NAMES.iter().filter(|(_, p)| *p == path).map(|(flag, _)| (*flag).to_owned()).collect();
    if named.is_empty() { vec![path.replace('_', "-")] } else { named }
}

pub(super) fn is_ignored(flag: &str) -> bool {
    IGNORED.iter().any(|known| {
        flag.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    })
}

/// The warning about an ignored flag.
pub(super) fn ignored_warning(flag: &str) -> String {
    let equivalent = EQUIVALENTS.iter().find(|(ignored, _)| *ignored == flag);
    let hint = equivalent.map(|(_, flag)| format!("; use -{flag} instead")).unwrap_or_default();
    format!("flag -{flag} has no meaning here and is ignored{hint}")
}

/// Removes the ignored sections of a configuration file, and returns their names.
pub(super) fn take_ignored_sections(document: &mut Value) -> Vec<&'static str> {
    let Value::Object(sections) = document else { return Vec::new() };
    IGNORED_SECTIONS.iter().copied().filter(|section| sections.remove(*section).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_sets_a_value_that_exists() {
        let defaults = serde_json::to_value(super::super::Config::default()).expect("serializes");
        for (flag, path) in NAMES {
            let pointer = format!("/{}", path.replace('.', "/"));
            assert!(defaults.pointer(&pointer).is_some(), "-{flag} sets {path}, which does not exist");
        }
    }

    #[test]
    fn the_default_name_of_a_flag_is_the_path_of_its_value() {
        assert_eq!(flags_of("storage.s3.bucket_name"), ["storage.s3.bucket-name"]);
        assert_eq!(flags_of("multitenancy_enabled"), ["auth.multitenancy-enabled"]);
    }

    #[test]
    fn what_replaces_an_ignored_flag_is_a_flag_and_no_ignored_section_is_known() {
        let defaults = serde_json::to_value(super::super::Config::default()).expect("serializes");
        for (ignored, flag) in EQUIVALENTS {
            assert!(is_ignored(ignored), "-{ignored}");
            let path = NAMES
                .iter()
                .find(|(name, _)| name == flag)
                .map_or(flag.replace('-', "_"), |(_, path)| (*path).into());
            assert!(defaults.pointer(&format!("/{}", path.replace('.', "/"))).is_some(), "-{flag}");
        }
        assert!(IGNORED_SECTIONS.iter().all(|section| defaults.get(section).is_none()));
    }

    #[test]
    fn ignored_names_cover_the_flags_below_them() {
        assert!(is_ignored("memberlist.gossip-interval"));
        assert!(!is_ignored("memberlist.bind-port"));
        assert!(is_ignored("usage-stats.enabled"));
        assert!(!is_ignored("tracingx"));
    }
}
