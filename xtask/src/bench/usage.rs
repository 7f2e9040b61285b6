//! What processes use, as /proc tells: CPU time and resident memory, of each process and all that it started.

use std::{collections::HashMap, fs, time::Duration};

/// One line of /proc/PID/stat, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of the process and of its children that have ended, in clock ticks.
    ticks: u64,
}

/// CPU time of `roots`, their descendants, and those of them that have ended.
pub(crate) fn cpu_time(roots: &[u32]) -> Duration {
    let all = all_stats();
    let ticks: u64 = tree(roots, &all).iter().filter_map(|pid| all.get(pid)).map(|stat| stat.ticks).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of `root` and its descendants, in bytes.
pub(crate) fn resident(root: u32) -> u64 {
    tree(&[root], &all_stats()).into_iter().map(resident_alone).sum()
}

fn resident_alone(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

fn all_stats() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A process that ended in between has no file any more.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse(&stat)?))
        })
        .collect()
}

/// The program's name stands in parentheses and may hold anything, spaces and parentheses too.
fn parse(stat: &str) -> Option<Stat> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Stat { parent, ticks: number(11)? + number(12)? + number(13)? + number(14)? })
}

fn tree(roots: &[u32], all: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found: Vec<u32> = roots.to_vec();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children: Vec<u32> = all
            .iter()
            .filter(|(pid, stat)| stat.parent == parent && !found.contains(pid))
            .map(|(&pid, _)| pid)
            .collect();
        found.extend(children);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) (b) S 7 42 42 0 -1 4194560 100 0 0 0 10 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Stat { parent: 7, ticks: 37 }));
    }

    #[test]
    fn children_of_children_belong_to_the_tree() {
        let stat = |parent| Stat { parent, ticks: 0 };
        let all = HashMap::from([(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(0))]);
        let mut found = tree(&[1], &all);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(std::process::id()) > 0);
    }
}
