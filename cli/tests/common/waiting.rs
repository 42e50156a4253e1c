//! What a test prints when it has waited in vain: whose silence was it?

use std::process::Command;

use super::text;

/// What runs below this test, and what it waits for: whose silence is it?
pub(crate) fn processes() -> String {
    let columns = "pid=,ppid=,pgid=,tpgid=,tty=,stat=,wchan:24=,args=";
    let all = Command::new("ps").args(["-eo", columns]).output();
    let all = all.map_or_else(|e| e.to_string(), |output| text(&output.stdout));
    let mut below = vec![std::process::id().to_string()];
    let mut lines = Vec::new();
    // A child's number is seldom below its parent's; then it is missing here.
    for line in all.lines() {
        let mut words = line.split_whitespace();
        let (pid, parent) = (words.next(), words.next());
        if let (Some(pid), Some(parent)) = (pid, parent)
            && below.iter().any(|it| it == parent)
        {
            below.push(pid.to_owned());
            lines.push(format!("{line}{}", threads(pid)));
        }
    }
    lines.join("\n")
}

/// Where the system's side of each thread of a process stands, where there are several; root may read that.
fn threads(pid: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks: Vec<_> = tasks.into_iter().flatten().flatten().collect();
    let stands = tasks.iter().map(|task| {
        let stack = std::fs::read_to_string(task.path().join("stack")).unwrap_or_default();
        let calls = stack.lines().take(4).map(|line| line.split("] ").last());
        let calls: Vec<&str> = calls.flatten().collect();
        format!("\n      {}", calls.join(" < "))
    });
    if tasks.len() > 1 {
        stands.collect()
    } else {
        String::new()
    }
}
