#!/usr/bin/env python3
"""Writes dashboards/*.json: the one readable source of all dashboards. `--check` only reports whether they are current."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
WIDTH, HEIGHT = 24, 8


def p99(metric, by="", where=""):
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.99, sum by ({group}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"


def p50(metric, by="", where=""):
    return p99(metric, by, where).replace("0.99", "0.5", 1)


def rate(metric, by="", where=""):
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{where}}}[$__rate_interval]))"


def lines(title, unit, *queries, description="", stacked=False):
    return "timeseries", title, unit, queries, description, stacked


def number(title, unit, query, description=""):
    return "stat", title, unit, [(query, "")], description, False


PUSHES = 'route=~"/ingest|/pyroscope/ingest|/push.v1.*"'
DASHBOARDS = {
    "overview": (
        "Pyrograph: overview",
        [
            number("Processes", "short", "count(pyrograph_build_info)"),
            number("Profiles per second", "short", rate("pyrograph_distributor_received_profiles_total")),
            number("Pushed bytes, uncompressed", "binBps", rate("pyrograph_distributor_received_bytes_total")),
            number("Failed pushes", "percentunit", f'({rate("pyrograph_edge_requests_total", where=PUSHES + ", status=~" + chr(34) + "5.." + chr(34))} or vector(0)) / {rate("pyrograph_edge_requests_total", where=PUSHES)}'),
            number("Quarantined objects", "short", "max(pyrograph_metastore_quarantined_objects)", "Objects that cannot be read or merged"),
            number("Partial answers per hour", "short", "sum(increase(pyrograph_querier_queries_partial_total[1h]))"),
            lines("Push latency", "s", (p50("pyrograph_ingester_push_duration_seconds"), "p50"), (p99("pyrograph_ingester_push_duration_seconds"), "p99")),
            lines("Query latency (p99)", "s", (p99("pyrograph_querier_query_seconds", "kind"), "{{kind}}")),
            lines("Lag", "s", ("max(pyrograph_metastore_consume_lag_seconds)", "consume"), ("max by (level) (pyrograph_metastore_merge_lag_seconds)", "merge to level {{level}}"), description="Normally queries see a push at once, and it is merged after half a minute."),
            lines("Requests to the store", "reqps", (rate("pyrograph_storage_requests_total", "operation, class"), "{{operation}} {{class}}"), stacked=True),
            lines("Memory", "bytes", ("process_resident_memory_bytes and on (instance) pyrograph_build_info", "{{instance}}")),
            lines("CPU", "short", ("rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) pyrograph_build_info", "{{instance}}"), description="Cores in use"),
        ],
    ),
    "writing": (
        "Pyrograph: writing",
        [
            lines("Profiles per second", "short", (rate("pyrograph_distributor_received_profiles_total", "tenant"), "{{tenant}}"), stacked=True),
            lines("Pushed bytes, on the wire and uncompressed", "binBps", (rate("pyrograph_distributor_received_wire_bytes_total"), "wire"), (rate("pyrograph_distributor_received_bytes_total"), "uncompressed")),
            lines("Refused profiles", "short", (rate("pyrograph_distributor_discarded_profiles_total", "reason, tenant"), "{{reason}} {{tenant}}")),
            lines("Refused bytes", "binBps", (rate("pyrograph_distributor_discarded_bytes_total", "reason, tenant"), "{{reason}} {{tenant}}")),
            lines("Pushes by status", "reqps", (rate("pyrograph_edge_requests_total", "status", PUSHES), "{{status}}"), stacked=True),
            lines("Time to decode and split", "s", (p50("pyrograph_distributor_prepare_seconds"), "p50"), (p99("pyrograph_distributor_prepare_seconds"), "p99")),
            lines("Time until durable", "s", (p50("pyrograph_ingester_push_duration_seconds"), "p50"), (p99("pyrograph_ingester_push_duration_seconds"), "p99")),
            lines("Flush, by stage (p99)", "s", (p99("pyrograph_ingester_flush_duration_seconds", "stage"), "{{stage}}")),
            lines("Segment size", "bytes", (p50("pyrograph_ingester_segment_bytes"), "p50"), (p99("pyrograph_ingester_segment_bytes"), "p99")),
            lines("Items per segment", "short", (p50("pyrograph_ingester_segment_items"), "p50"), (p99("pyrograph_ingester_segment_items"), "p99")),
            lines("Budgets in use", "percentunit", ("pyrograph_distributor_inflight_bytes / pyrograph_distributor_inflight_limit_bytes", "distributor {{instance}}"), ("pyrograph_ingester_inflight_bytes / pyrograph_ingester_inflight_limit_bytes", "ingester {{instance}}"), description="Over 1, pushes are refused with 429."),
            lines("Refusals by ingesters", "short", (rate("pyrograph_ingester_refusals_total", "reason"), "{{reason}}")),
            lines("Abandoned logs", "short", (rate("pyrograph_ingester_abandoned_logs_total", "reason"), "{{reason}}")),
            lines("Resent items, counted once", "short", (rate("pyrograph_metastore_items_masked_total"), "items")),
        ],
    ),
    "reading": (
        "Pyrograph: reading",
        [
            lines("Queries", "reqps", (rate("pyrograph_querier_queries_total", "kind, outcome"), "{{kind}} {{outcome}}"), stacked=True),
            lines("Query latency (p50)", "s", (p50("pyrograph_querier_query_seconds", "kind"), "{{kind}}")),
            lines("Query latency (p99)", "s", (p99("pyrograph_querier_query_seconds", "kind"), "{{kind}}")),
            lines("Running queries", "short", ("pyrograph_querier_queries_running", "{{instance}}")),
            lines("Partial, stale and restarted queries", "short", (rate("pyrograph_querier_queries_partial_total"), "partial"), (rate("pyrograph_querier_queries_stale_total"), "stale"), (rate("pyrograph_querier_query_retries_total"), "restarted")),
            lines("Bytes read", "binBps", (rate("pyrograph_querier_read_bytes_total"), "encoded"), (rate("pyrograph_storage_bytes_total", "class", 'operation=~"get|range"'), "from the store, {{class}}")),
            lines("Scanned samples", "short", (rate("pyrograph_querier_scanned_samples_total"), "samples")),
            lines("Memory cache hit ratio", "percentunit", ("rate(pyrograph_block_cache_hits_total[$__rate_interval]) / (rate(pyrograph_block_cache_hits_total[$__rate_interval]) + rate(pyrograph_block_cache_misses_total[$__rate_interval]))", "{{instance}}"), description="Share of object parts found decoded in memory"),
            lines("Memory cache size", "bytes", ("pyrograph_block_cache_bytes", "{{instance}}"), ("pyrograph_block_cache_limit_bytes", "limit {{instance}}")),
            lines("Disk cache hit ratio", "percentunit", ("rate(pyrograph_block_disk_cache_hit_bytes_total[$__rate_interval]) / (rate(pyrograph_block_disk_cache_hit_bytes_total[$__rate_interval]) + rate(pyrograph_block_disk_cache_miss_bytes_total[$__rate_interval]))", "{{instance}}"), description="Share of the bytes missing in memory that came from the local disk"),
            lines("Disk cache size", "bytes", ("pyrograph_block_disk_cache_bytes", "{{instance}}")),
            lines("Disk cache failures", "short", (rate("pyrograph_block_disk_cache_failures_total", "instance"), "failed {{instance}}"), (rate("pyrograph_block_disk_cache_skipped_total", "instance"), "not written {{instance}}")),
            lines("Find duration", "s", (p50("pyrograph_metastore_find_duration_seconds"), "p50"), (p99("pyrograph_metastore_find_duration_seconds"), "p99")),
        ],
    ),
    "cluster": (
        "Pyrograph: cluster",
        [
            number("Owners of the catalog", "short", "sum(pyrograph_metastore_owner)", "1, except for seconds after a crash"),
            number("Takeovers per day", "short", "sum(increase(pyrograph_metastore_takeovers_total[1d]))"),
            number("Fenced owners per day", "short", "sum(increase(pyrograph_metastore_fenced_total[1d]))", "A metastore lost the catalog while it was alive"),
            lines("Members", "short", ("max by (role) (pyrograph_cluster_members)", "{{role}}"), description="As seen by the processes that see most"),
            lines("Members that some processes do not see", "short", ("max by (role) (pyrograph_cluster_members) - min by (role) (pyrograph_cluster_members)", "{{role}}"), description="Above 0 for minutes: gossip is cut"),
            lines("Owner of the catalog", "short", ("pyrograph_metastore_owner", "{{instance}}")),
            lines("Gossip of other clusters", "short", (rate("pyrograph_cluster_strangers_total", "instance"), "{{instance}}"), description="Ignored datagrams"),
            lines("Pushes retried on another ingester", "short", (rate("pyrograph_cluster_push_retries_total", "instance"), "{{instance}}")),
            lines("Scans sent to a second querier", "short", (rate("pyrograph_querier_units_asked_elsewhere_total"), "first failed"), (rate("pyrograph_querier_units_hedged_total"), "first was slow"), (rate("pyrograph_querier_units_hedges_won_total"), "first was slow, second won")),
            lines("Stale answers", "percentunit", (f'{rate("pyrograph_querier_queries_stale_total")} / {rate("pyrograph_querier_queries_total")}', "share"), description="From a catalog without an owner, or one that lagged"),
        ],
    ),
    "compaction": (
        "Pyrograph: compaction and catalog",
        [
            lines("Merge lag", "s", ("max by (level) (pyrograph_metastore_merge_lag_seconds)", "level {{level}}"), description="1: from segments, 2: within an open hour, 3: of a day"),
            lines("Consume lag", "s", ("max(pyrograph_metastore_consume_lag_seconds)", "lag")),
            lines("Jobs", "short", (rate("pyrograph_metastore_jobs_claimed_total"), "claimed"), (rate("pyrograph_metastore_jobs_published_total"), "published"), (rate("pyrograph_metastore_jobs_failed_total"), "failed"), (rate("pyrograph_metastore_attempts_lapsed_total"), "lapsed")),
            lines("Job duration (p99)", "s", (p99("pyrograph_compactor_job_duration_seconds", "level"), "level {{level}}")),
            lines("Merged bytes", "binBps", (rate("pyrograph_compactor_input_bytes_total"), "in"), (rate("pyrograph_compactor_output_bytes_total"), "out")),
            lines("Live objects", "short", ("max(pyrograph_metastore_live_segments)", "segments"), ("max(pyrograph_metastore_live_blocks)", "blocks")),
            lines("Bytes per sample", "bytes", ("max by (level) (pyrograph_metastore_live_bytes) / max by (level) (pyrograph_metastore_live_rows)", "level {{level}}"), description="Symbols and rollups included. 0: segments, 1: merged from them, 2: within an open hour, 3: of a day"),
            lines("Dead objects", "short", ("max(pyrograph_metastore_dead_objects)", "waiting"), (rate("pyrograph_compactor_objects_deleted_total"), "deleted per second")),
            lines("Age of the oldest dead object", "s", ("max(pyrograph_metastore_oldest_dead_object_seconds)", "")),
            lines("Quarantined, missing, orphaned objects", "short", ("max(pyrograph_metastore_quarantined_objects)", "quarantined"), ("sum(pyrograph_metastore_objects_missing_total)", "missing"), ("sum(pyrograph_metastore_objects_orphaned_total)", "orphaned")),
            lines("Window in which resent pushes count once", "s", ("max(pyrograph_metastore_dedup_window_seconds)", "window")),
            lines("Remembered keys of pushes", "short", ("max(pyrograph_metastore_dedup_keys)", "keys")),
            lines("Commits", "short", (rate("pyrograph_metastore_commits_total"), "per second")),
            lines("Commit duration", "s", (p50("pyrograph_metastore_commit_duration_seconds"), "p50"), (p99("pyrograph_metastore_commit_duration_seconds"), "p99")),
            lines("Deletions", "short", ("max(pyrograph_metastore_delete_orders_in_force)", "not finished"), ("sum(increase(pyrograph_metastore_delete_orders_total[1h]))", "made within an hour")),
            lines("Age of the oldest unfinished deletion", "s", ("max(pyrograph_metastore_oldest_delete_order_seconds)", "")),
            lines("Objects expired by retention", "short", (rate("pyrograph_metastore_objects_expired_total"), "objects")),
        ],
    ),
    "store": (
        "Pyrograph: object store",
        [
            number("Requests priced as PUT, per second", "reqps", rate("pyrograph_storage_requests_total", where='operation=~"create|list"')),
            number("Requests priced as GET, per second", "reqps", rate("pyrograph_storage_requests_total", where='operation=~"get|range"')),
            number("Requests per month, in dollars", "currencyUSD", f'30 * 86400 * (5e-6 * {rate("pyrograph_storage_requests_total", where="operation=~" + chr(34) + "create|list" + chr(34))} + 4e-7 * {rate("pyrograph_storage_requests_total", where="operation=~" + chr(34) + "get|range" + chr(34))})', "At $5 per million PUT and LIST, $0.40 per million GET; deletes are free"),
            lines("Requests", "reqps", (rate("pyrograph_storage_requests_total", "operation, class"), "{{operation}} {{class}}"), stacked=True),
            lines("Retries and second reads", "reqps", (rate("pyrograph_storage_retries_total", "outcome"), "retry {{outcome}}"), (rate("pyrograph_storage_hedges_total", "outcome"), "second read {{outcome}}")),
            lines("Failed requests", "reqps", (rate("pyrograph_storage_requests_total", "operation, class, outcome", 'outcome=~"error|timeout|throttled|denied"'), "{{operation}} {{class}} {{outcome}}")),
            lines("Request duration (p50)", "s", (p50("pyrograph_storage_request_duration_seconds", "operation, class"), "{{operation}} {{class}}")),
            lines("Request duration (p99)", "s", (p99("pyrograph_storage_request_duration_seconds", "operation, class"), "{{operation}} {{class}}")),
            lines("Bytes written", "binBps", (rate("pyrograph_storage_bytes_total", "class", 'operation="create"'), "{{class}}"), stacked=True),
            lines("Bytes read", "binBps", (rate("pyrograph_storage_bytes_total", "class", 'operation=~"get|range"'), "{{class}}"), stacked=True),
        ],
    ),
}


def panel(number_, place, kind, title, unit, queries, description, stacked):
    source = {"type": "prometheus", "uid": "${datasource}"}
    defaults = {"unit": unit, "min": 0}
    if kind == "timeseries":
        fill = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if stacked else {"fillOpacity": 5}
        defaults["custom"] = {"lineWidth": 1, "showPoints": "never", **fill}
    targets = [
        {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": source}
        for i, (expr, legend) in enumerate(queries)
    ]
    options = {"tooltip": {"mode": "multi", "sort": "desc"}} if kind == "timeseries" else {"graphMode": "area"}
    return {
        "id": number_, "type": kind, "title": title, "description": description, "datasource": source,
        "gridPos": place, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options, "targets": targets,
    }


def dashboard(name, title, content):
    panels, x, y = [], 0, 0
    for each in content:
        width, height = (4, 4) if each[0] == "stat" else (WIDTH // 2, HEIGHT)
        if len(panels) and panels[-1]["type"] != each[0] and x:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(panel(len(panels) + 1, {"x": x, "y": y, "w": width, "h": height}, *each))
        x += width
        if x >= WIDTH:
            x, y = 0, y + height
    link = {"type": "dashboards", "title": "Pyrograph", "tags": ["pyrograph"], "asDropdown": True, "keepTime": True}
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": f"pyrograph-{name}", "title": title, "tags": ["pyrograph"], "schemaVersion": 39, "editable": True,
        "time": {"from": "now-3h", "to": "now"}, "refresh": "30s", "links": [link],
        "templating": {"list": [variable]}, "panels": panels,
    }


def main():
    stale = []
    for name, (title, content) in DASHBOARDS.items():
        file = FOLDER / f"pyrograph-{name}.json"
        text = json.dumps(dashboard(name, title, content), indent=1) + "\n"
        if "--check" in sys.argv:
            if not file.exists() or file.read_text() != text:
                stale.append(file.name)
        else:
            file.write_text(text)
    if stale:
        sys.exit(f"not current: {', '.join(stale)}; run deploy/grafana/dashboards.py")


if __name__ == "__main__":
    main()
