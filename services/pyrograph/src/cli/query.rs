//! `pyrograph query`: queries to a server; answers as tables, trees or files.

use std::collections::HashMap;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use model::{Profile, ProfileType};
use wire::querier::v1 as querier;
use wire::types::v1 as types;

use super::client::{Server, print};
use super::text::inert;
use super::{Error, INCOMPLETE};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Functions by their own and their total share.
    Top(Top),
    /// The call tree, widest branches first.
    Flamegraph(Flamegraph),
    /// The value over time, one line per group.
    Series(Series),
    /// Label names with their number of values; with a name, its values.
    Labels(Labels),
}

#[derive(clap::Args)]
struct Source {
    /// Profile type and selector, as in the UI's address:
    /// `process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name="my-app"}`.
    /// Without a type, CPU.
    #[arg(long, short)]
    query: String,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    server: Server,
    /// Show how the query was answered instead: blocks found and pruned, leaves that scanned them, bytes, time per
    /// step.
    #[arg(long)]
    explain: bool,
}

#[derive(clap::Args)]
struct Range {
    /// Start: `now-1h`, Unix seconds or milliseconds.
    #[arg(long, default_value = "now-1h")]
    from: String,
    /// End.
    #[arg(long, alias = "to", default_value = "now")]
    until: String,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// The server's own answer.
    Json,
    /// A pprof file, for `go tool pprof`.
    Pprof,
    /// Folded stacks, one per line.
    Folded,
}

#[derive(clap::Args)]
pub(super) struct Top {
    #[command(flatten)]
    source: Source,
    /// Number of functions.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
pub(super) struct Flamegraph {
    #[command(flatten)]
    source: Source,
    /// Hide branches with less than this share of the total, in percent.
    #[arg(long, default_value_t = 1.0)]
    min_percent: f64,
    /// Number of levels.
    #[arg(long, default_value_t = 40)]
    max_depth: usize,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
pub(super) struct Series {
    #[command(flatten)]
    source: Source,
    /// One line per value of this label; repeatable.
    #[arg(long = "by")]
    by: Vec<String>,
    /// Seconds per point; 0 means a sixtieth of the range, at least 15.
    #[arg(long, default_value_t = 0.0)]
    step: f64,
    /// Maximum number of lines, largest first.
    #[arg(long, default_value_t = 20)]
    limit: i64,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
pub(super) struct Labels {
    /// Show the values of this label instead of the names of all.
    name: Option<String>,
    /// Only series that match, for example `{service_name="my-app"}`.
    #[arg(long, short, default_value = "{}")]
    query: String,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    server: Server,
    /// Show how the query was answered instead.
    #[arg(long)]
    explain: bool,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// Exits with [`INCOMPLETE`] if the answer has gaps.
pub(super) async fn run(command: Command) -> Result<ExitCode, Error> {
    let server = command.server().clone();
    match command {
        Command::Top(arguments) => top(arguments).await?,
        Command::Flamegraph(arguments) => flamegraph(arguments).await?,
        Command::Series(arguments) => series(arguments).await?,
        Command::Labels(arguments) => labels(arguments).await?,
    }
    Ok(if server.report_completeness() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

impl Command {
    fn server(&self) -> &Server {
        match self {
            Self::Top(arguments) => &arguments.source.server,
            Self::Flamegraph(arguments) => &arguments.source.server,
            Self::Series(arguments) => &arguments.source.server,
            Self::Labels(arguments) => &arguments.server,
        }
    }
}

async fn top(arguments: Top) -> Result<(), Error> {
    let Some(profile) = answer(&arguments.source, arguments.output).await? else {
        return Ok(());
    };
    let functions = Functions::of(&profile);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["self", "%", "total", "%", "function"]);
    for column in 0..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let unit = unit(&profile);
    for (name, own, total) in functions.by_self().into_iter().take(arguments.limit) {
        table.add_row([
            quantity(own, &unit),
            percent(own, functions.sum),
            quantity(total, &unit),
            percent(total, functions.sum),
            inert(&name).into_owned(),
        ]);
    }
    print(format!("{table}\ntotal {}\n", quantity(functions.sum, &unit)).as_bytes())
}

async fn flamegraph(arguments: Flamegraph) -> Result<(), Error> {
    let Some(profile) = answer(&arguments.source, arguments.output).await? else {
        return Ok(());
    };
    let mut root = Node::default();
    for (stack, value) in named_stacks(&profile) {
        root.add(&stack, value);
    }
    let unit = unit(&profile);
    let least = (root.total as f64 * arguments.min_percent / 100.0).ceil() as i64;
    let mut out = format!("total {}\n", quantity(root.total, &unit));
    root.write(&mut out, 0, arguments.max_depth, least.max(1), root.total, &unit);
    print(out.as_bytes())
}

/// The merged profile of a query; `None` if nothing matched or it was already printed in another form.
async fn answer(source: &Source, output: Output) -> Result<Option<Profile>, Error> {
    let (profile_type, selector) = split_query(&source.query)?;
    let (start, end) = source.range.millis();
    let method = "querier.v1.QuerierService/SelectMergeStacktraces";
    if source.explain || output == Output::Json {
        let body = serde_json::json!({
            "profile_typeID": profile_type, "label_selector": selector, "start": start, "end": end,
        });
        if source.explain {
            source.server.explain(method, &body).await?;
            return Ok(None);
        }
        let text = source.server.call_json(method, &body).await?;
        print(format!("{text}\n").as_bytes())?;
        return Ok(None);
    }
    let request = querier::SelectMergeStacktracesRequest {
        profile_type_id: profile_type,
        label_selector: selector,
        start,
        end,
        format: querier::ProfileFormat::Pprof as i32,
        ..Default::default()
    };
    let answer: querier::SelectMergeStacktracesResponse = source.server.call(method, &request).await?;
    let message = answer.pprof.and_then(|p| p.profile).unwrap_or_default();
    if message.sample.is_empty() {
        eprintln!("nothing matches {} from {} to {}", source.query, source.range.from, source.range.until);
        return Ok(None);
    }
    let bytes = prost::Message::encode_to_vec(&message);
    if output == Output::Pprof {
        print(&formats::gzip::compress(&bytes, 6))?;
        return Ok(None);
    }
    let profile = formats::pprof::decode(bytes.into(), &formats::pprof::Limits::default())?.profile;
    if output == Output::Folded {
        let mut lines: Vec<String> = named_stacks(&profile)
            .into_iter()
            .map(|(stack, value)| format!("{} {value}\n", inert(&stack.join(";"))))
            .collect();
        lines.sort();
        print(lines.concat().as_bytes())?;
        return Ok(None);
    }
    Ok(Some(profile))
}

async fn series(arguments: Series) -> Result<(), Error> {
    let (profile_type, selector) = split_query(&arguments.source.query)?;
    let (start, end) = arguments.source.range.millis();
    let step =
        if arguments.step > 0.0 { arguments.step } else { ((end - start) as f64 / 60_000.0).max(15.0) };
    let body = serde_json::json!({
        "profile_typeID": profile_type, "label_selector": selector, "start": start, "end": end,
        "step": step, "group_by": arguments.by, "limit": arguments.limit,
    });
    let method = "querier.v1.QuerierService/SelectSeries";
    if arguments.source.explain {
        return arguments.source.server.explain(method, &body).await;
    }
    let text = arguments.source.server.call_json(method, &body).await?;
    match arguments.output {
        Output::Json => return print(format!("{text}\n").as_bytes()),
        Output::Pprof | Output::Folded => {
            return Err("time series have no stacks: --output table or json".into());
        }
        Output::Table => {}
    }
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    let unit = profile_type.parse::<ProfileType>()?.sample_unit;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["series", "sum", "largest", "over time"]);
    for line in answer["series"].as_array().into_iter().flatten() {
        let labels: Vec<String> = line["labels"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|label| {
                format!("{}={}", label["name"].as_str().unwrap_or(""), label["value"].as_str().unwrap_or(""))
            })
            .collect();
        let points: Vec<(i64, f64)> = line["points"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| (integer(&p["timestamp"]), p["value"].as_f64().unwrap_or(0.0)))
            .collect();
        let sum: f64 = points.iter().map(|p| p.1).sum();
        let largest = points.iter().map(|p| p.1).fold(0.0, f64::max);
        table.add_row([
            if labels.is_empty() { "all".into() } else { inert(&labels.join(" ")).into_owned() },
            quantity(sum as i64, &unit),
            quantity(largest as i64, &unit),
            sparkline(&points, start, end, largest),
        ]);
    }
    print(format!("{table}\n").as_bytes())
}

async fn labels(arguments: Labels) -> Result<(), Error> {
    let (start, end) = arguments.range.millis();
    let matchers = vec![arguments.query.clone()];
    if arguments.explain {
        let mut body = serde_json::json!({ "matchers": matchers, "start": start, "end": end });
        let mut method = "querier.v1.QuerierService/LabelNames";
        if let Some(name) = &arguments.name {
            body["name"] = name.as_str().into();
            method = "querier.v1.QuerierService/LabelValues";
        }
        return arguments.server.explain(method, &body).await;
    }
    let values = async |name: &str| -> Result<Vec<String>, Error> {
        let request = types::LabelValuesRequest { name: name.into(), matchers: matchers.clone(), start, end };
        let answer: types::LabelValuesResponse =
            arguments.server.call("querier.v1.QuerierService/LabelValues", &request).await?;
        Ok(answer.names)
    };
    if let Some(name) = &arguments.name {
        let values = values(name).await?;
        return match arguments.output {
            Output::Json => print(format!("{}\n", serde_json::to_string(&values)?).as_bytes()),
            _ => {
                print(values.iter().map(|value| format!("{}\n", inert(value))).collect::<String>().as_bytes())
            }
        };
    }
    let request = types::LabelNamesRequest { matchers: matchers.clone(), start, end };
    let names: types::LabelNamesResponse =
        arguments.server.call("querier.v1.QuerierService/LabelNames", &request).await?;
    if arguments.output == Output::Json {
        return print(format!("{}\n", serde_json::to_string(&names.names)?).as_bytes());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["label", "values", "for example"]);
    for name in &names.names {
        let values = values(name).await?;
        let example = values.first().map(|value| inert(value)).unwrap_or_default();
        table.add_row([inert(name).into_owned(), values.len().to_string(), example.into_owned()]);
    }
    print(format!("{table}\n").as_bytes())
}

/// `type{selector}` → the type and `{selector}`.
fn split_query(query: &str) -> Result<(String, String), Error> {
    let brace = query.find('{').unwrap_or(query.len());
    let (profile_type, selector) = (query[..brace].trim(), query[brace..].trim());
    let profile_type = if profile_type.is_empty() { CPU } else { profile_type };
    profile_type.parse::<ProfileType>()?;
    Ok((profile_type.to_owned(), if selector.is_empty() { "{}".into() } else { selector.to_owned() }))
}

impl Range {
    fn millis(&self) -> (i64, i64) {
        let now = clock::Clock::system().unix_nanos();
        let millis = |text: &str| formats::ingest::attime(text, now) / 1_000_000;
        (millis(&self.from), millis(&self.until))
    }
}

/// Stacks of function names, root first, with the value of the first sample type.
fn named_stacks(profile: &Profile) -> Vec<(Vec<String>, i64)> {
    let symbols = &profile.symbols;
    let width = profile.sample_types.len().max(1);
    let mut merged: HashMap<Vec<String>, i64> = HashMap::new();
    for sample in 0..profile.samples.len() {
        let mut stack = Vec::new();
        for location in symbols.stacktraces.get(sample as u32).iter().rev() {
            let lines = symbols.locations.lines_of(*location);
            if lines.is_empty() {
                stack.push(format!("0x{:x}", symbols.locations.address[*location as usize]));
            }
            for line in lines.iter().rev() {
                let name =
                    symbols.functions.get(line.function as usize).map(|f| symbols.strings.text(f.name));
                stack.push(name.unwrap_or_default().into_owned());
            }
        }
        *merged.entry(stack).or_default() += profile.samples.values[sample * width];
    }
    merged.into_iter().collect()
}

/// Self and total value per function; recursion counts once.
struct Functions {
    values: HashMap<String, (i64, i64)>,
    sum: i64,
}

impl Functions {
    fn of(profile: &Profile) -> Self {
        let mut values: HashMap<String, (i64, i64)> = HashMap::new();
        let mut sum = 0;
        for (mut stack, value) in named_stacks(profile) {
            sum += value;
            if let Some(leaf) = stack.last() {
                values.entry(leaf.clone()).or_default().0 += value;
            }
            stack.sort();
            stack.dedup();
            for name in stack {
                values.entry(name).or_default().1 += value;
            }
        }
        Self { values, sum }
    }

    fn by_self(&self) -> Vec<(String, i64, i64)> {
        let mut all: Vec<_> =
            self.values.iter().map(|(name, (own, total))| (name.clone(), *own, *total)).collect();
        all.sort_by(|a, b| (b.1, b.2, &a.0).cmp(&(a.1, a.2, &b.0)));
        all
    }
}

#[derive(Default)]
struct Node {
    total: i64,
    own: i64,
    children: HashMap<String, Node>,
}

impl Node {
    fn add(&mut self, stack: &[String], value: i64) {
        let mut node = self;
        node.total += value;
        for name in stack {
            node = node.children.entry(name.clone()).or_default();
            node.total += value;
        }
        node.own += value;
    }

    fn write(&self, out: &mut String, depth: usize, depth_max: usize, least: i64, sum: i64, unit: &str) {
        if depth == depth_max {
            return;
        }
        let mut children: Vec<_> = self.children.iter().filter(|(_, child)| child.total >= least).collect();
        children.sort_by(|a, b| (b.1.total, a.0).cmp(&(a.1.total, b.0)));
        for (name, child) in children {
            let own =
                if child.own > 0 { format!(" (self {})", quantity(child.own, unit)) } else { String::new() };
            out.push_str(&format!(
                "{:>7} {:>9}  {}{}{own}\n",
                percent(child.total, sum),
                quantity(child.total, unit),
                "  ".repeat(depth),
                inert(name)
            ));
            child.write(out, depth + 1, depth_max, least, sum, unit);
        }
    }
}

fn unit(profile: &Profile) -> String {
    let unit = profile.sample_types.first().map(|t| profile.symbols.strings.text(t.unit));
    inert(&unit.unwrap_or_default()).into_owned()
}

fn percent(part: i64, whole: i64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

/// A value as people read it: `1.23 s`, `4.5 MiB`, `12.3 k`.
fn quantity(value: i64, unit: &str) -> String {
    let scales: &[(f64, &str)] = match unit {
        "nanoseconds" => &[(3.6e12, "h"), (6e10, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        "bytes" => &[
            (1_099_511_627_776.0, "TiB"),
            (1_073_741_824.0, "GiB"),
            (1_048_576.0, "MiB"),
            (1024.0, "KiB"),
            (1.0, "B"),
        ],
        _ => &[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")],
    };
    let size = (value as f64).abs();
    let (scale, name) = scales.iter().find(|(scale, _)| size >= *scale).unwrap_or(&scales[scales.len() - 1]);
    let scaled = value as f64 / scale;
    let digits = if *scale == 1.0 { 0 } else { 2 };
    format!("{scaled:.digits$} {name}").trim_end().to_owned()
}

fn integer(value: &serde_json::Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// Sixty columns, one block character each.
fn sparkline(points: &[(i64, f64)], start: i64, end: i64, largest: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const COLUMNS: usize = 60;
    let mut columns = [0.0_f64; COLUMNS];
    for (time, value) in points {
        let share = (time - start) as f64 / (end - start).max(1) as f64;
        let column = ((share * COLUMNS as f64) as usize).min(COLUMNS - 1);
        columns[column] = columns[column].max(*value);
    }
    let bar = |value: &f64| match value {
        v if *v <= 0.0 => ' ',
        v => BARS[((v / largest * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    columns.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_type_means_cpu() {
        let (profile_type, selector) = split_query(r#"{service_name="a"}"#).expect("valid");
        assert_eq!((profile_type.as_str(), selector.as_str()), (CPU, r#"{service_name="a"}"#));
        assert!(split_query("cpu{}").is_err());
    }

    #[test]
    fn quantities_have_a_readable_unit() {
        for (value, unit, expected) in [
            (1_234_000_000, "nanoseconds", "1.23 s"),
            (950, "nanoseconds", "950 ns"),
            (4_718_592, "bytes", "4.50 MiB"),
            (12_300, "count", "12.30 k"),
            (0, "count", "0"),
        ] {
            assert_eq!(quantity(value, unit), expected);
        }
    }

    #[test]
    fn recursion_counts_once_in_the_total() {
        let mut node = Node::default();
        node.add(&["f".into(), "f".into()], 3);
        assert_eq!(node.children["f"].total, 3);
        assert_eq!(node.children["f"].own, 0);
    }
}
