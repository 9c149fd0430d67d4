//! `simulation [--from S] [--seeds N] [--jobs J] [--planted NAME|all]`, or `simulation --seed S [--trace]`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use simulation::{Options, Outcome, Planted, run};

/// The parsed command line.
struct Arguments {
    from: u64,
    seeds: u64,
    jobs: u64,
    options: Options,
    planted: Vec<Planted>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if arguments.options.trace {
        let filter = tracing_subscriber::EnvFilter::new("info");
        tracing_subscriber::fmt().without_time().with_env_filter(filter).with_writer(std::io::stdout).init();
    }
    let failed = match arguments.planted.as_slice() {
        [planted] if arguments.seeds == 1 => run_all(&Arguments {
            options: Options { planted: Some(*planted), ..arguments.options },
            ..arguments
        }),
        [] => run_all(&arguments),
        _ => find_planted(&arguments),
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed =
        Arguments { from: 0, seeds: 100, jobs: 2, options: Options::default(), planted: Vec::new() };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{name} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value:?}"))
        };
        match name.as_str() {
            "--from" => parsed.from = number()?,
            "--seeds" => parsed.seeds = number()?,
            "--jobs" => parsed.jobs = number()?.max(1),
            "--seed" => (parsed.from, parsed.seeds, parsed.jobs) = (number()?, 1, 1),
            "--planted" => {
                let name = arguments.next().ok_or("--planted needs a name, or all")?;
                parsed.planted = match name.as_str() {
                    "all" => Planted::ALL.to_vec(),
                    name => vec![name.parse()?],
                };
            }
            "--trace" => parsed.options.trace = true,
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    Ok(parsed)
}

/// Runs seeds with each bug until it is found; returns the number of bugs that are not found.
fn find_planted(arguments: &Arguments) -> usize {
    let next = AtomicUsize::new(0);
    let missed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(planted) = arguments.planted.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let options = Options { planted: Some(*planted), ..arguments.options.clone() };
                    let seeds = arguments.from..arguments.from + arguments.seeds;
                    let failing = |seed| {
                        let violation = run(seed, &options).violations.first().cloned();
                        violation.map(|violation| (seed, violation))
                    };
                    match seeds.clone().find_map(failing) {
                        Some((seed, violation)) => println!(
                            "{planted} | {} | {} | {seed} | {}",
                            planted.description(),
                            violation.invariant,
                            violation.details
                        ),
                        None => {
                            missed.fetch_add(1, Ordering::SeqCst);
                            println!("{planted} | {} | NOT FOUND in seeds {seeds:?}", planted.description());
                        }
                    }
                }
            });
        }
    });
    missed.into_inner()
}

/// Runs all seeds; returns the number of seeds that failed.
fn run_all(arguments: &Arguments) -> usize {
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let done: Mutex<Vec<Outcome>> = Mutex::default();
    #[allow(clippy::disallowed_methods, reason = "the time that a person waits")]
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end {
                        return;
                    }
                    let outcome = run(seed, &arguments.options);
                    for violation in &outcome.violations {
                        println!("seed {seed}: {violation}");
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push(outcome);
                    if done.len().is_multiple_of(100) {
                        eprintln!("{} seeds in {:.0?}", done.len(), began.elapsed());
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<&Outcome> = done.iter().filter(|outcome| !outcome.violations.is_empty()).collect();
    let mut by_invariant: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for outcome in &failed {
        for violation in outcome.violations.iter().take(1) {
            by_invariant.entry(violation.invariant).or_default().push(outcome.seed);
        }
    }
    for (invariant, seeds) in by_invariant {
        println!("{invariant}: {} seeds, such as {:?}", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
    if let Some(outcome) = failed.first() {
        println!("replay: make simulate-seed SEED={}", outcome.seed);
    }
    let sum = |value: &dyn Fn(&Outcome) -> u64| done.iter().map(value).sum::<u64>();
    println!(
        "{} seeds, {} failed, {} items of which {} acknowledged, {} steps, {} simulated hours, {:.1?}",
        done.len(),
        failed.len(),
        sum(&|outcome| outcome.items as u64),
        sum(&|outcome| outcome.acknowledged as u64),
        sum(&|outcome| outcome.steps),
        sum(&|outcome| outcome.took.as_secs()) / 3_600,
        began.elapsed(),
    );
    if let [outcome] = &done[..] {
        println!("trace {:016x}", outcome.hash);
    }
    failed.len()
}
