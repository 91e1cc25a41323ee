//! What a thread asks of the system's scheduler.
//!
//! Left out: priorities, which a process without rights may not raise, and which processors threads run on: whoever starts the node
//! chooses that, and shards are counted by it.

use rustix::process::Pid;
use std::io;

/// How long a thread runs in one go that works a little and often, in nanoseconds: the least that Linux takes.
const SHORT_NS: u64 = 100_000;

/// Asks that a thread of this process, by default this one, run in short turns. Its share of the processor stays the same.
///
/// For that it is let run the sooner once it has something to do, also where a busy thread has the processor. And who wakes up while it
/// runs has the processor the sooner, as far as that one goes before: the system lets everybody finish a turn, and looks at who is nicer
/// only then. Linux 6.12 and newer do so; older ones, and whoever forbids it, leave all as it was.
pub fn ask_for_short_turns(thread: Option<Pid>) -> io::Result<()> {
    let thread = thread.map_or(0, Pid::as_raw_pid);
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes no more than `size` bytes to it. There are no flags.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        // Somebody has chosen otherwise for it.
        return Ok(());
    }
    attributes.size = size;
    attributes.sched_runtime = SHORT_NS;
    // SAFETY: the system reads `size` bytes of it. All but one are what it said of that very thread.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets this thread stand behind all others by so much: nobody waits for it. Linux gives each thread its own niceness. Where it is
/// refused, the thread only disturbs more.
pub fn stand_behind(nice: i32) {
    let _ = rustix::process::nice(nice);
    let _ = ask_for_short_turns(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_policy_and_its_share() {
        let said = || std::fs::read_to_string("/proc/thread-self/stat").expect("/proc is there");
        // Behind the name in parentheses: the 16th and 17th field are priority and nice value, the 39th is the policy.
        let of = |stat: String| -> Vec<String> {
            let rest = stat.rsplit_once(')').expect("a name").1.split_whitespace().map(str::to_owned);
            let fields: Vec<String> = rest.collect();
            [15, 16, 38].map(|at| fields[at].clone()).to_vec()
        };
        let worked = std::thread::spawn(move || {
            rustix::process::nice(3).expect("less is always allowed");
            let before = of(said());
            // Where it is refused, too.
            let _ = ask_for_short_turns(None);
            assert_eq!(of(said()), before);
            before
        });
        let before = worked.join().expect("no panic");
        assert_eq!((before[1].as_str(), before[2].as_str()), ("3", "0"));
    }
}
