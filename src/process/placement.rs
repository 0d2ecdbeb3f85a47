//! Where threads of the library run and how urgently, as a host has asked for it. What the system refuses is an error with its number.

use crate::error::{Error, Result};

/// The highest number of a processor, and one.
pub const MOST_CPUS: usize = 8192;

/// A scheduling class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// That of the thread that makes the engine, as its nice value is.
    #[default]
    Inherited,
    /// The system's usual one, with a nice value.
    Normal,
    /// For what computes long and is not waited for, with a nice value.
    Batch,
    /// Only where nothing else wants to run.
    Idle,
    /// Real time, first in, first out, with a priority.
    Fifo,
    /// Real time, in turn, with a priority.
    RoundRobin,
}

/// Where threads run and how urgently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Processors by their numbers; empty: where the thread that makes the engine may run.
    pub cpus: Vec<u32>,
    /// Thread `i` runs on `cpus[i % n]` alone, otherwise on any of them.
    pub each: bool,
    /// The class.
    pub policy: Policy,
    /// The nice value or the priority in it.
    pub priority: i32,
}

impl Placement {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        self.cpus.is_empty() && self.policy == Policy::Inherited
    }

    /// Refuses what no system grants, and what this one has no means for.
    pub fn check(&self) -> Result<()> {
        if let Some((index, cpu)) = self.cpus.iter().enumerate().find(|(_, cpu)| **cpu as usize >= MOST_CPUS) {
            return Err(refused("cpus", format!("{cpu} at index {index}"), format!("at most {}", MOST_CPUS - 1)));
        }
        let (least, most) = match self.policy {
            Policy::Inherited | Policy::Idle => (0, 0),
            Policy::Normal | Policy::Batch => (-20, 19),
            Policy::Fifo | Policy::RoundRobin => (1, 99),
        };
        if !(least..=most).contains(&self.priority) {
            return Err(refused("thread_priority", self.priority.to_string(), format!("{least} to {most}")));
        }
        if !cfg!(target_os = "linux") && !self.is_default() {
            return Err(Error::Unsupported { what: "system operation", name: "place threads".into() });
        }
        Ok(())
    }

    /// Places the current thread, the engine's thread `index`.
    #[cfg(target_os = "linux")]
    pub fn apply(&self, index: usize) -> Result<()> {
        if !self.cpus.is_empty() {
            let own = index % self.cpus.len();
            let at = if self.each { own..own + 1 } else { 0..self.cpus.len() };
            linux::run_on(&self.cpus, at)?;
        }
        linux::schedule(self.policy, self.priority)
    }

    /// Nothing: [`Self::check`] lets nothing else through here.
    #[cfg(not(target_os = "linux"))]
    pub fn apply(&self, _: usize) -> Result<()> {
        Ok(())
    }

    /// Different processors that are asked for; `None`: nothing is.
    pub fn n_cpus(&self) -> Option<usize> {
        let different = self.cpus.iter().collect::<std::collections::HashSet<_>>().len();
        (different > 0).then_some(different)
    }
}

fn refused(name: &'static str, found: String, expected: String) -> Error {
    Error::Argument { name, found, expected }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Error as SystemError;
    use std::ops::Range;

    use super::{MOST_CPUS, Policy, refused};
    use crate::error::Result;

    /// A bit for each processor.
    type Mask = [u64; MOST_CPUS / 64];

    fn has(mask: &Mask, cpu: u32) -> bool {
        mask.get(cpu as usize / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Where the current thread may run; `None`: the system does not say.
    fn granted() -> Option<Mask> {
        let mut mask: Mask = [0; MOST_CPUS / 64];
        // SAFETY: writes at most the mask's bytes; 0 is the calling thread.
        let status = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
        (status == 0).then_some(mask)
    }

    /// Has the current thread run on `cpus[at]`, and looks whether all of them were granted: the system grants a part in silence.
    pub fn run_on(cpus: &[u32], at: Range<usize>) -> Result<()> {
        let mut mask: Mask = [0; MOST_CPUS / 64];
        for cpu in &cpus[at] {
            if let Some(word) = mask.get_mut(*cpu as usize / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
        let may = granted();
        // SAFETY: reads the mask's bytes; 0 is the calling thread.
        let status = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
        let why = if status == 0 { String::new() } else { format!(" ({})", SystemError::last_os_error()) };
        let now = if status == 0 { granted() } else { None };
        let lacks = |cpu: u32| !now.as_ref().is_some_and(|now| has(now, cpu));
        let n = may.map_or(0, |may| may.iter().map(|word| word.count_ones()).sum::<u32>());
        match cpus.iter().enumerate().find(|(_, cpu)| has(&mask, **cpu) && lacks(**cpu)) {
            None => Ok(()),
            Some((index, cpu)) => Err(refused(
                "cpus",
                format!("{cpu} at index {index}, which the system does not grant{why}"),
                format!("some of the {n} that the calling thread may run on"),
            )),
        }
    }

    /// Gives the current thread its class, and its nice value or priority.
    pub fn schedule(policy: Policy, priority: i32) -> Result<()> {
        let class = match policy {
            Policy::Inherited => return Ok(()),
            Policy::Normal => libc::SCHED_OTHER,
            Policy::Batch => libc::SCHED_BATCH,
            Policy::Idle => libc::SCHED_IDLE,
            Policy::Fifo => libc::SCHED_FIFO,
            Policy::RoundRobin => libc::SCHED_RR,
        };
        let real_time = matches!(policy, Policy::Fifo | Policy::RoundRobin);
        let has_nice = matches!(policy, Policy::Normal | Policy::Batch);
        let refuses = |name, what: String| {
            let error = SystemError::last_os_error();
            refused(name, what, format!("what the system grants; it refuses this with \"{error}\""))
        };
        let in_class: libc::c_int = if real_time { priority } else { 0 };
        // SAFETY: reads a struct that begins with this int and, on Linux, ends there; 0 is the calling thread. The call itself:
        // not every C library passes it on.
        if unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const in_class) } != 0 {
            return Err(refuses("thread_policy", format!("{policy:?} with a priority of {in_class}")));
        }
        // SAFETY: passes numbers; 0 is, on Linux, the calling thread.
        if has_nice && unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) } != 0 {
            return Err(refuses("thread_priority", priority.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(placement: Placement) -> std::result::Result<(), String> {
        placement.check().map_err(|e| e.to_string())?;
        std::thread::spawn(move || placement.apply(1)).join().unwrap().map_err(|e| e.to_string())
    }

    #[test]
    fn what_no_system_grants_is_refused_before_it_is_tried() {
        let most = MOST_CPUS as u32;
        let text = placed(Placement { cpus: vec![0, most], ..Placement::default() }).unwrap_err();
        assert_eq!(text, "cpus is 8192 at index 1; expected at most 8191");
        for (policy, priority, range) in [
            (Policy::Inherited, 1, "0 to 0"),
            (Policy::Normal, 20, "-20 to 19"),
            (Policy::Idle, -1, "0 to 0"),
            (Policy::Fifo, 0, "1 to 99"),
        ] {
            let text = placed(Placement { policy, priority, ..Placement::default() }).unwrap_err();
            assert_eq!(text, format!("thread_priority is {priority}; expected {range}"));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_this_system_does_not_grant_is_refused_with_its_reason() {
        // No machine of today has it.
        let text = placed(Placement { cpus: vec![MOST_CPUS as u32 - 1], ..Placement::default() }).unwrap_err();
        assert!(
            text.starts_with("cpus is 8191 at index 0, which the system does not grant (") && text.contains("os error")
        );
        assert_eq!(placed(Placement { policy: Policy::Normal, priority: 19, ..Placement::default() }), Ok(()));
        assert_eq!(placed(Placement::default()), Ok(()));
    }
}
