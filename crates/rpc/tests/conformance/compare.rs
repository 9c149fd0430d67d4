//! Compares values by their content, wherever it is in memory.

use model::{PushItem, Symbols};
use query::flamegraph::{Real, finish};
use query::{Answer, Partial};
use rpc::{ScanAnswer, ScanRequest};

pub(crate) fn items(items: &[PushItem]) -> String {
    let one = |item: &PushItem| {
        let mut profile = (*item.profile).clone();
        let symbols = symbols(&profile.symbols);
        profile.symbols = Symbols::default();
        format!("{} {} {symbols} {profile:?} {:?}", item.tenant, item.key, item.series)
    };
    items.iter().map(one).collect()
}

pub(crate) fn scan(request: &ScanRequest) -> String {
    format!("{request:?}")
}

pub(crate) fn symbols(symbols: &Symbols) -> String {
    let strings: Vec<_> = symbols.strings.iter().map(String::from_utf8_lossy).collect();
    let Symbols { mappings, functions, locations, stacktraces, .. } = symbols;
    format!("{strings:?} {mappings:?} {functions:?} {locations:?} {stacktraces:?}")
}

#[track_caller]
pub(crate) fn assert_same_scan(a: &ScanAnswer, b: &ScanAnswer) {
    assert_same(&a.partial, &b.partial);
    assert_eq!((&a.missing, &a.effort), (&b.missing, &b.effort));
}

#[track_caller]
pub(crate) fn assert_same(a: &Partial, b: &Partial) {
    assert_eq!(a.stats, b.stats);
    match (&a.answer, &b.answer) {
        (Answer::MergeStacktraces(a), Answer::MergeStacktraces(b)) => {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                let flame = |part| finish([std::slice::from_ref(part)], 0, Real::Keep);
                assert_eq!(flame(a), flame(b));
            }
        }
        (Answer::MergeProfile(a), Answer::MergeProfile(b)) => {
            assert_eq!(symbols(&a.symbols), symbols(&b.symbols));
            assert_eq!(a.values, b.values);
        }
        (Answer::Series(a), Answer::Series(b)) => assert_eq!(a, b),
        (Answer::Heatmap(a), Answer::Heatmap(b)) => assert_eq!(a.as_slice(), b.as_slice()),
        (Answer::Labels(a), Answer::Labels(b)) => assert_eq!(a, b),
        (a, b) => panic!("answers of two kinds: {a:?} and {b:?}"),
    }
}
