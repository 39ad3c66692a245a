//! `cargo demo`: Hark on one machine, for a first look. Start reading at [`stage`], which starts and stops everything.
#![expect(clippy::disallowed_methods, reason = "the demo runs by the clock and has no pipeline: who starts a thread owns it")]
mod agent;
mod arguments;
mod brokers;
mod configuration;
mod ledger;
mod machines;
mod metrics;
mod plain;
mod pulse;
mod readback;
#[cfg(test)]
mod rehearsal;
mod scene;
mod screen;
mod stage;
mod story;
mod summary;
mod view;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use hark::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    arguments::Arguments,
    readback::lock,
    screen::{Asked, Screen},
    stage::{Ended, Stage},
};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == agent::ROLE).is_some() {
        return agent::main(words);
    }
    // The agent starts a part of itself from this program.
    if words.peek().is_some_and(|word| hark::is_part(word)) {
        return hark::main();
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(Some(ended)) => report(&arguments, &ended),
        Ok(None) => {
            eprintln!("ended at once: everything is stopped, and nothing was counted");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the demo could not run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: asked twice for the end, and therefore at once.
fn run(arguments: &Arguments) -> Result<Option<Ended>> {
    let (interrupt, hurry) = (Arc::new(Stop::default()), Arc::new(Stop::default()));
    // Dropped at the end: its tasks end with it.
    let _signals = listen_for_signals(&interrupt, &hurry)?;
    let live = !arguments.plain && Screen::terminal_can();
    if !live {
        say(&format!("Hark demo: three simulated machines. {}", if arguments.run_for.is_some() { "It ends by itself." } else { "Ctrl-C ends it." }))?;
    }
    let mut stage = Stage::start(arguments)?;
    if !live {
        say(&format!(
            "{}\nagent: process {}, gateway {}, files in {}",
            stage.brokers,
            stage.agent_pid(),
            stage.gateway,
            stage.directory().display()
        ))?;
    }
    let mut screen = if live { Screen::live(stage.brokers.clone(), arguments.run_for)? } else { Screen::plain() };
    let mut faults = Vec::new();
    loop {
        let over = {
            let mut scene = lock(&stage.scene);
            let over = arguments.run_for.is_some_and(|limit| scene.elapsed() >= limit);
            over | screen.show(&mut scene)?
        };
        if over || screen.wait(&interrupt).is_some() {
            break;
        }
        if let Some(problem) = stage.broken() {
            faults.push(problem);
            break;
        }
    }
    // Whatever asked for the end, the next signal asks for it at once.
    interrupt.request();
    let scene = stage.scene.clone();
    let mut wait = |timeout: Duration, condition: &mut dyn FnMut() -> bool| {
        let mut held = false;
        brokers::wait_until(timeout, || {
            // Who has closed the output is still owed a clean stop.
            let _ = screen.show(&mut lock(&scene));
            if screen.wait(&hurry) == Some(Asked::Interrupt) {
                hurry.request();
            }
            held = condition();
            held || hurry.requested()
        });
        held
    };
    let ended = stage.stop(&mut wait, &hurry, faults, arguments.keep);
    let _ = screen.show(&mut lock(&scene));
    Ok(ended)
}

/// The summary, after the terminal is a terminal again.
fn report(arguments: &Arguments, ended: &Ended) -> ExitCode {
    let mut text = String::new();
    if let Some(alarms) = &ended.alarms {
        text.push_str(&format!("\nAlarms at the end, as `hark alarm list` tells them on the gateway:\n\n{alarms}\n"));
    }
    text.push_str(&ended.summary.text());
    let note = if ended.kept { "" } else { " (removed; --keep keeps it)" };
    text.push_str(&format!("  log of the agent: {}{note}", ended.log.display()));
    if arguments.json {
        // Numbers, texts and vectors of them: this cannot fail.
        let line = serde_json::to_string(&ended.summary).unwrap_or_default();
        text = format!("{text}\n{line}");
    }
    if say(&text).is_ok() && ended.summary.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The one place that prints beside the views.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// SIGINT, SIGTERM and SIGHUP ask for a clean end, and the second of them for one at once.
fn listen_for_signals(interrupt: &Arc<Stop>, hurry: &Arc<Stop>) -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("signals").enable_all().build()?;
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let _inside = runtime.enter();
        let mut signal = signal(kind).context("failed to listen for signals")?;
        let (interrupt, hurry) = (interrupt.clone(), hurry.clone());
        runtime.spawn(async move {
            while signal.recv().await.is_some() {
                if interrupt.requested() {
                    hurry.request();
                }
                interrupt.request();
            }
        });
    }
    Ok(runtime)
}
