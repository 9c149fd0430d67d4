//! The memory limit of this process: a setting, its control groups, or part of the RAM.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Without a limit of its control group, a process may use 1/`RAM_PART` of the RAM: other programs share the machine.
const RAM_PART: u64 = 2;

/// Bytes of memory that this process may use, and the source of the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    pub bytes: u64,
    pub source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The configuration.
    Setting,
    /// A control group of this process, or one above it.
    ControlGroup,
    /// Half of the machine's memory.
    Ram,
    /// The system reports no memory size.
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting => "setting",
            Self::ControlGroup => "control group",
            Self::Ram => "half of the RAM",
            Self::Unknown => "unknown",
        })
    }
}

impl Limit {
    /// Limit if the system reports no memory size: a small server.
    const FALLBACK_BYTES: u64 = 1 << 30;

    /// `setting`, or, if that is 0, the limit that the system sets for this process.
    pub fn read(setting: u64) -> Self {
        match setting {
            0 => Self::of_system(Path::new("/")),
            bytes => Self { bytes, source: Source::Setting },
        }
    }

    /// The smallest limit of the process's control groups and their ancestors, if it is below the machine's memory;
    /// half of that memory if no group has a limit. `root` contains `proc` and `sys`.
    fn of_system(root: &Path) -> Self {
        let ram = ram_bytes(&root.join("proc/meminfo"));
        let groups = control_groups(root);
        let limits = groups.iter().filter_map(|file| limit_of(file));
        // Version 1 writes a number near 2^63 for "no limit".
        let limited = limits.min().filter(|bytes| ram.is_none_or(|ram| *bytes < ram));
        match (limited, ram) {
            (Some(bytes), _) => Self { bytes, source: Source::ControlGroup },
            (None, Some(ram)) => Self { bytes: ram / RAM_PART, source: Source::Ram },
            (None, None) => Self { bytes: Self::FALLBACK_BYTES, source: Source::Unknown },
        }
    }
}

/// Files that may hold a limit: one of each control group of the process, and of each ancestor.
fn control_groups(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let listed = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    for line in listed.lines() {
        // `<hierarchy>:<controllers>:<path>`; the controllers are empty in version 2.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (is_wanted, name): (fn(&Mount<'_>) -> bool, _) = match controllers {
            "" => (|mount| mount.kind == "cgroup2", "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => (
                |mount| mount.kind == "cgroup" && mount.options.split(',').any(|option| option == "memory"),
                "memory.limit_in_bytes",
            ),
            _ => continue,
        };
        for mount in mounts.lines().filter_map(Mount::parse).filter(|mount| is_wanted(mount)) {
            let top = root.join(mount.point.trim_start_matches('/'));
            // In a container, the path may be the one of the host, of which only the end is mounted.
            let below = Path::new(path).strip_prefix(mount.root).unwrap_or(Path::new(""));
            let below: PathBuf = below.components().filter(|part| part.as_os_str() != "/").collect();
            files.extend(below.ancestors().map(|group| top.join(group).join(name)));
        }
    }
    files
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// Path within the hierarchy of the mounted directory.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut system = system.split(' ');
        let kind = system.next()?;
        Some(Self { root, point, kind, options: system.nth(1).unwrap_or_default() })
    }
}

/// `None` if the file does not exist, or contains `max`.
fn limit_of(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn ram_bytes(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn limit(files: &[(&str, &str)]) -> Limit {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Limit::of_system(root.path())
    }

    #[test]
    fn a_setting_is_used_without_asking_the_system() {
        assert_eq!(Limit::read(7), Limit { bytes: 7, source: Source::Setting });
    }

    #[test]
    fn version_2_takes_the_smallest_limit_up_to_the_root() {
        let found = limit(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/pod1/container\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/kubepods/pod1/container/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n"),
            ("sys/fs/cgroup/kubepods/memory.max", "1073741824\n"),
        ]);
        assert_eq!(found, Limit { bytes: 512 << 20, source: Source::ControlGroup });
    }

    #[test]
    fn version_2_in_its_own_namespace_has_the_limit_at_the_top() {
        let found = limit(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ]);
        assert_eq!(found, Limit { bytes: 256 << 20, source: Source::ControlGroup });
    }

    #[test]
    fn version_1_has_a_separate_hierarchy_for_memory() {
        let found = limit(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/other\n4:memory:/docker/abc\n0::/\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "2147483648\n"),
            ("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/other/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(found, Limit { bytes: 2 << 30, source: Source::ControlGroup });
    }

    #[test]
    fn version_1_in_a_container_is_mounted_at_its_own_group() {
        let mounts = "32 24 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let group = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
        for path in ["4:memory:/docker/abc\n", "4:memory:/elsewhere\n"] {
            let found = limit(&[MEMINFO, ("proc/self/cgroup", path), ("proc/self/mountinfo", mounts), group]);
            assert_eq!(found, Limit { bytes: 1 << 30, source: Source::ControlGroup }, "{path}");
        }
    }

    #[test]
    fn without_a_control_group_limit_half_of_the_ram_is_used() {
        let half = Limit { bytes: 4 << 30, source: Source::Ram };
        assert_eq!(limit(&[MEMINFO]), half);
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let found =
            limit(&[MEMINFO, ("proc/self/cgroup", "4:memory:/\n"), ("proc/self/mountinfo", V1), unlimited]);
        assert_eq!(found, half);
    }

    #[test]
    fn a_system_without_any_information_counts_as_small() {
        assert_eq!(limit(&[]), Limit { bytes: 1 << 30, source: Source::Unknown });
        assert_eq!(
            limit(&[("proc/self/cgroup", "rubbish\n:::\n"), ("proc/self/mountinfo", "- -\n")]),
            limit(&[])
        );
    }
}
