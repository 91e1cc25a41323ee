//! Disks that are full, may not be written to, or fail. They need root, and a file system or a tracer that this test makes: where
//! it may not, it says so and checks nothing.

use crate::local_cluster::{has_strace, left_out, until};
use crate::script::{say, shown};
use crate::served_nodes::ServedNodes;
use crate::written::{Journal, check_all, until_more, while_writing};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

/// The exit code of a process whose disk has failed.
const DISK_FAILED: i32 = 3;

/// A file system in memory, gone with this.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with a word, where this process may not mount.
    fn new(at: &Path, options: &str) -> Option<Mount> {
        std::fs::create_dir_all(at).expect("a directory of this test's own");
        let tried =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "annulet-test"]).arg(at).output();
        match tried {
            Ok(output) if output.status.success() => Some(Mount(at.to_owned())),
            other => {
                left_out(&format!(
                    "what a full or read-only disk does: this process may not mount a file system ({other:?})"
                ));
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount");
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a node that a failing test leaves running is ended after this.
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

/// A node whose data directory is such a file system. The mount is dropped last.
fn on_mount(options: &str, settings: &[&str]) -> Option<(ServedNodes, Mount)> {
    first_on_mount(1, options, settings)
}

/// The same of the first of several nodes.
fn first_on_mount(count: u16, options: &str, settings: &[&str]) -> Option<(ServedNodes, Mount)> {
    let nodes = ServedNodes::prepare(count, settings);
    let secret = std::fs::read(nodes.data(1).join("join.secret")).unwrap();
    let mount = Mount::new(&nodes.data(1), options)?;
    std::fs::write(nodes.data(1).join("join.secret"), secret).unwrap();
    Some((nodes, mount))
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    // Room for two segments of 64 MiB, but for the filler.
    let Some((mut nodes, mount)) = on_mount("size=160m", &["--shards", "1"]) else { return };
    let filler = mount.0.join("filler");
    std::fs::write(&filler, vec![1; 64 << 20]).unwrap();
    nodes.start_all();
    nodes.wait_whole();
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 1000));
    let mut client = nodes.client(1);
    let value = "x".repeat(512 << 10);
    let mut stored = 0;
    loop {
        let reply = shown(&say(&mut client, &format!("SET large:{stored} {value}")));
        if reply.starts_with("!MISCONF ") {
            break;
        }
        assert_eq!(reply, "OK");
        stored += 1;
        assert!(stored < 400, "it never was full");
    }
    assert!(stored > 50, "full after {stored} values");
    for round in 0..20 {
        assert!(shown(&say(&mut client, "SET more 1")).starts_with("!MISCONF "));
        assert!(shown(&say(&mut client, &format!("APPEND large:{round} x"))).starts_with("!MISCONF "));
        assert_eq!(shown(&say(&mut client, &format!("STRLEN large:{round}"))), (512 << 10).to_string());
        assert_eq!(shown(&say(&mut client, &format!("DEL large:{round}"))), "1");
        assert_eq!(shown(&say(&mut client, &format!("GET large:{round}"))), "nil");
    }
    check_all(&journals, &ports);
    let said = nodes.said(1);
    assert!(said.contains("no room is left on the disk"), "{said}");
    // Nobody writes anything while there is room again, and still it is found.
    std::fs::remove_file(&filler).unwrap();
    until("it has room again", || nodes.said(1).contains("the disk has room again"));
    assert_eq!(shown(&say(&mut client, "SET more 1")), "OK");
    while_writing(&mut journals, &ports, |total| until_more(total, 1000));
    nodes.kill([1]);
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
    let mut client = nodes.client(1);
    assert_eq!(shown(&say(&mut client, "GET more")), "\"1\"");
    for number in 0..stored {
        let expected = if number < 20 { "0" } else { "524288" };
        assert_eq!(shown(&say(&mut client, &format!("STRLEN large:{number}"))), expected, "large:{number}");
    }
    drop(client);
    nodes.stop([1]);
}

/// What the disk has no room for is refused before it is ordered: otherwise all that comes behind it would wait for room.
#[test]
fn a_write_that_is_larger_than_what_is_left_is_refused_and_nothing_else() {
    let Some((mut nodes, mount)) = on_mount("size=320m", &["--shards", "1"]) else { return };
    let filler = mount.0.join("filler");
    // Beside the log's first 64 MiB this leaves about 40 MiB.
    std::fs::write(&filler, vec![1; 205 << 20]).unwrap();
    nodes.start_all();
    nodes.wait_whole();
    let mut client = nodes.client(1);
    assert_eq!(shown(&say(&mut client, "SET small 1")), "OK");
    let value = "x".repeat(100 << 20);
    for round in 0..3 {
        let began = std::time::Instant::now();
        let reply = shown(&say(&mut client, &format!("SET large {value}")));
        assert!(reply.starts_with("!MISCONF "), "{}", &reply[..reply.len().min(100)]);
        assert!(began.elapsed() < std::time::Duration::from_secs(4), "it waited");
        // Nor what would become as large by a small request.
        assert!(shown(&say(&mut client, "SETRANGE small 104857600 x")).starts_with("!MISCONF "));
        assert_eq!(shown(&say(&mut client, "GET small")), "\"1\"");
        assert_eq!(shown(&say(&mut client, "EXISTS large")), "0");
        assert_eq!(shown(&say(&mut client, &format!("SET more:{round} 1"))), "OK");
        assert_eq!(shown(&say(&mut client, &format!("DEL more:{round}"))), "1");
    }
    assert_eq!(shown(&say(&mut client, &format!("SET fits {}", &value[..10 << 20]))), "OK");
    let said = nodes.said(1);
    assert!(!said.contains("no room is left on the disk"), "{said}");
    // Nobody writes anything while there is room again, and still it is found.
    std::fs::remove_file(&filler).unwrap();
    until("it fits", || shown(&say(&mut client, &format!("SET large {value}"))) == "OK");
    nodes.kill([1]);
    nodes.start_all();
    nodes.wait_whole();
    let mut client = nodes.client(1);
    for (key, length) in [("large", 100 << 20), ("fits", 10 << 20), ("small", 1)] {
        assert_eq!(shown(&say(&mut client, &format!("STRLEN {key}"))), length.to_string());
    }
    drop(client);
    nodes.stop([1]);
}

/// Fills a file system to its last byte.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let mut piece = 1 << 20;
    while piece > 0 {
        match file.write(&vec![1; piece]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => piece /= 16,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Somebody has filled a voter's disk. It goes on deciding, in the room that it holds in reserve: without it two of three voters
/// would be gone when another dies, and nobody would take over. It also starts again, and nothing acknowledged is lost.
#[test]
fn the_control_plane_goes_on_on_a_full_disk() {
    let settings = ["--shards", "1", "--copies", "2"];
    let Some((mut nodes, mount)) = first_on_mount(3, "size=160m", &settings) else { return };
    nodes.start_all();
    nodes.wait_whole();
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 1000));
    let filler = mount.0.join("filler");
    fill(&filler);
    assert!(std::fs::write(mount.0.join("more"), [1]).is_err(), "it is full");
    for victim in [2, 3, 2] {
        while_writing(&mut journals, &ports, |total| {
            nodes.kill([victim]);
            until_more(total, 300);
            nodes.start_all();
            until_more(total, 300);
        });
        nodes.wait_whole();
        check_all(&journals, &ports);
    }
    // Its own end and start have to be noted, too.
    nodes.kill([1]);
    nodes.start_all();
    nodes.wait_whole();
    nodes.stop([1]);
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
    std::fs::remove_file(&filler).unwrap();
    while_writing(&mut journals, &ports, |total| until_more(total, 500));
    check_all(&journals, &ports);
    nodes.stop(nodes.ids());
}

/// With no room for a log at all a node cannot serve: it says so, ends when it is told to, and goes on once there is some.
#[test]
fn a_node_that_starts_on_a_full_disk_waits_for_room() {
    let Some((mut nodes, mount)) = on_mount("size=80m", &["--shards", "1"]) else { return };
    let filler = mount.0.join("filler");
    std::fs::write(&filler, vec![1; 40 << 20]).unwrap();
    nodes.start_all();
    until("it says so", || nodes.said(1).contains("no room is left on the disk"));
    until("it has a lease", || nodes.said(1).contains("this node serves"));
    nodes.terminate(1);
    let ended = nodes.wait_end(1);
    assert_eq!(ended.code(), Some(DISK_FAILED), "{}", nodes.said(1));
    nodes.start_all();
    nodes.wait_answer(1);
    std::fs::remove_file(&filler).unwrap();
    nodes.wait_whole();
    assert_eq!(shown(&say(&mut nodes.client(1), "SET early 1")), "OK");
    nodes.stop([1]);
}

#[test]
fn a_directory_that_may_not_be_written_to_is_told() {
    let Some((mut nodes, mount)) = on_mount("size=160m", &["--shards", "1"]) else { return };
    nodes.start_all();
    nodes.wait_whole();
    let mut journals = vec![Journal::new(0)];
    let ports = nodes.ports();
    while_writing(&mut journals, &ports, |total| until_more(total, 500));
    nodes.stop([1]);
    mount.remount("ro");
    let said = nodes.refused(1);
    let data = nodes.data(1).display().to_string();
    for part in [&data, "Read-only file system", "Set `dir` to a directory that this user may write"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    mount.remount("rw");
    nodes.start_all();
    nodes.wait_whole();
    check_all(&journals, &ports);
    nodes.stop([1]);
}

/// A sync that fails is final: nobody knows what is on the disk then, so nothing more is acknowledged.
#[test]
fn a_disk_that_fails_stops_the_node_and_loses_nothing_acknowledged() {
    if !has_strace() {
        return;
    }
    let mut nodes = ServedNodes::start(1, &["--shards", "1"]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 500));
    for (call, when) in [("fdatasync", "60+"), ("fdatasync", "100"), ("pwrite64", "80")] {
        nodes.stop([1]);
        let inject = format!("inject={call}:error=EIO:when={when}");
        nodes.run_under_strace(&["-e", &format!("trace={call}"), "-e", &inject]);
        let said = nodes.said(1);
        nodes.start_node(1);
        let ended = while_writing(&mut journals, &ports, |total| {
            let before = total.load(Ordering::Relaxed);
            let ended = nodes.wait_end(1);
            assert!(total.load(Ordering::Relaxed) > before, "it failed before it served");
            ended
        });
        let said = nodes.said_since(1, &said);
        assert_eq!(ended.code(), Some(DISK_FAILED), "{call}: {said}");
        assert!(said.contains("Input/output error") && said.contains("shard-0/log-"), "{call}: {said}");
        assert!(said.contains("this node's disk has failed, so it stops"), "{call}: {said}");
        nodes.run_under(&[]);
        nodes.start_node(1);
        nodes.wait_whole();
        check_all(&journals, &ports);
    }
}

/// What the disk cannot read any more is rot, told with its place, and comes back from the other copy.
#[test]
fn a_sector_that_cannot_be_read_is_healed_from_the_other_node() {
    if !has_strace() {
        return;
    }
    let mut nodes = ServedNodes::start(2, &["--shards", "1"]);
    let ports = nodes.ports();
    let mut journals: Vec<Journal> = (0..3).map(Journal::new).collect();
    while_writing(&mut journals, &ports, |total| until_more(total, 500));
    nodes.stop(nodes.ids());
    let path = nodes.segments(1, 0).pop().expect("a log has a file");
    let file = path.display().to_string();
    nodes.run_under_strace(&["-P", &file, "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"]);
    nodes.start_node(1);
    nodes.run_under(&[]);
    nodes.start_all();
    nodes.wait_whole();
    let said = nodes.said(1);
    assert!(said.contains(&format!("{file} is damaged at byte 0")), "{said}");
    assert!(said.contains("shard-0.aside-1"), "{said}");
    check_all(&journals, &ports);
}
