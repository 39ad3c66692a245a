//! Where the scene is shown: a live view on a terminal, or lines of text.
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use hark::stop::Stop;
use ratatui::DefaultTerminal;

use crate::{plain::Plain, scene::Scene, view};

/// What a key or a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The end: q, Esc, a signal, or a terminal that is gone.
    End,
    /// The end, by Ctrl-C on the keyboard.
    Interrupt,
}

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// One of the two.
pub enum Screen {
    /// Pictures.
    Live(Box<Live>),
    /// Lines.
    Plain(Plain),
}

/// The terminal, taken over. Dropping it gives it back; so does a panic.
pub struct Live {
    terminal: DefaultTerminal,
    brokers: String,
    run_for: Option<Duration>,
}

impl Screen {
    /// Whether standard output is a terminal that pictures can be drawn on, and nobody asked for plain text through NO_COLOR.
    pub fn terminal_can() -> bool {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        io::stdout().is_terminal() && io::stdin().is_terminal() && !no_colour && !dumb
    }

    /// Takes over the terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn live(brokers: String, run_for: Option<Duration>) -> io::Result<Self> {
        Ok(Self::Live(Box::new(Live { terminal: ratatui::try_init()?, brokers, run_for })))
    }

    /// Prints lines.
    pub fn plain() -> Self {
        Self::Plain(Plain::new())
    }

    /// Shows what is new; true when nobody watches any more.
    ///
    /// # Errors
    /// When the terminal fails.
    pub fn show(&mut self, scene: &mut Scene) -> io::Result<bool> {
        match self {
            Self::Live(live) => {
                let (brokers, run_for) = (live.brokers.as_str(), live.run_for);
                live.terminal.draw(|frame| view::draw(frame, scene, brokers, run_for))?;
                Ok(false)
            }
            Self::Plain(plain) => match plain.turn(scene) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
                other => other.map(|()| false),
            },
        }
    }

    /// Waits until the next picture is due, or until a key or `signal` asks for something.
    pub fn wait(&mut self, signal: &Stop) -> Option<Asked> {
        if matches!(self, Self::Plain(_)) {
            return signal.wait(FRAME).then_some(Asked::End);
        }
        let due = Instant::now() + FRAME;
        loop {
            if signal.requested() {
                return Some(Asked::End);
            }
            match event::poll(due.saturating_duration_since(Instant::now())) {
                Ok(true) => match event::read().map(|event| asked_by(&event)) {
                    Ok(None) => {}
                    Ok(asked) => return asked,
                    Err(_) => return Some(Asked::End),
                },
                Ok(false) => return None,
                // A terminal that cannot be read is gone.
                Err(_) => return Some(Asked::End),
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn asked_by(event: &Event) -> Option<Asked> {
    let Event::Key(key) = event else { return None };
    match key.code {
        _ if key.kind != KeyEventKind::Press => None,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Asked::End),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Asked::Interrupt),
        _ => None,
    }
}
