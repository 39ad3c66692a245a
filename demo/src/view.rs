//! The live view: a box per machine, the way to Kafka, and a legend. State is said in words and signs; colour only repeats it.
use std::time::{Duration, Instant};

use hark_protocol::topics::AlarmState;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};

use crate::{
    machines::{COMMISSIONING_ROWS, Fate, Way},
    plain,
    pulse::Link,
    scene::{MachineScene, Scene, Standing},
    story,
};

/// Smaller than this and the view falls back to lines.
const SMALLEST: (u16, u16) = (76, 24);
/// Columns of words in a machine's box; the curve has the rest.
const WORDS: u16 = 46;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene, brokers: &str, run_for: Option<Duration>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return draw_lines(frame, scene, run_for);
    }
    let machines = Constraint::Fill(1);
    let [head, body, path, legend] = Layout::vertical([Constraint::Length(1), machines, Constraint::Length(5), Constraint::Length(3)]).areas(area);
    frame.render_widget(header(scene, area.width, run_for), head);
    let boxes = Layout::vertical(vec![Constraint::Fill(1); scene.machines.len()]).split(body);
    for (machine, area) in scene.machines.iter().zip(boxes.iter()) {
        draw_machine(frame, machine, scene.now_ms, *area);
    }
    draw_path(frame, scene, brokers, path);
    frame.render_widget(Paragraph::new(story::legend(scene)).wrap(Wrap { trim: true }), legend);
}

fn header(scene: &Scene, width: u16, run_for: Option<Duration>) -> Line<'static> {
    let clock = |seconds: u64| format!("{}:{:02}", seconds / 60, seconds % 60);
    let elapsed = clock(scene.elapsed().as_secs());
    let of = run_for.map(|limit| format!(" of {}", clock(limit.as_secs()))).unwrap_or_default();
    let right = format!("{elapsed}{of}   q ends ");
    let left = " Hark demo: simulated machines, real agent";
    let gap = usize::from(width).saturating_sub(left.chars().count() + right.chars().count());
    Line::from(vec![Span::from(left).bold(), Span::from(" ".repeat(gap)), Span::from(right)])
}

fn draw_machine(frame: &mut Frame<'_>, machine: &MachineScene, now_ms: i64, area: Rect) {
    let standing = machine.standing();
    let fate = match machine.machine.fate {
        Fate::Healthy => "stays healthy, its load changes".to_owned(),
        Fate::Fault { what, after, .. } => format!("{what} from {} s", after.as_secs()),
    };
    let way = match machine.machine.way {
        Way::Serial { .. } => "serial node",
        Way::Mqtt => "MQTT",
    };
    let title = Line::from(vec![Span::from(format!(" {} ", machine.machine.asset)).bold(), Span::from(format!("{} ", machine.machine.name))]);
    let arranged = Line::from(format!(" {way}: {fate} ")).dim().right_aligned();
    let border = Style::new().fg(colour(standing));
    let frame_box = Block::bordered().border_style(border).title(title).title(arranged);
    let inside = frame_box.inner(area);
    frame.render_widget(frame_box, area);
    let [words, _, curve] = Layout::horizontal([Constraint::Length(WORDS), Constraint::Length(1), Constraint::Fill(1)]).areas(inside);
    let lines = vec![state_line(machine, standing, now_ms), level_line(machine, standing), reason_line(machine, standing)];
    frame.render_widget(Paragraph::new(lines), words);
    draw_curve(frame, machine, curve);
}

/// What it does, and since when if something is wrong.
fn state_line(machine: &MachineScene, standing: Standing, now_ms: i64) -> Line<'static> {
    let mut spans = vec![Span::from(format!(" {} {}", sign(standing), standing.words())).style(Style::new().fg(colour(standing)).bold())];
    if let (Standing::Alarm | Standing::Advice, Some(alarm)) = (standing, &machine.alarm) {
        let since_s = (now_ms - machine.alarm_since_ms).max(0) / 1_000;
        let known = if alarm.state == AlarmState::ActiveAcknowledged { ", acknowledged" } else { "" };
        spans.push(Span::from(format!(" since {since_s} s{known}")));
    }
    Line::from(spans)
}

/// How far the learning is, or health and score.
fn level_line(machine: &MachineScene, standing: Standing) -> Line<'static> {
    match standing {
        Standing::Waiting => Line::default(),
        Standing::Learning => Line::from(format!(" {} {:>3.0} %", bar(machine.progress, 30), 100.0 * machine.progress)),
        _ => {
            let part = machine.health.unwrap_or(0.0) / 100.0;
            let health = machine.health.map_or_else(|| "  ?".to_owned(), |health| format!("{health:>3.0}"));
            let score = match (machine.score, machine.limit) {
                (Some(score), Some(limit)) => format!("score {} of {}", plain::number(score), plain::number(limit)),
                _ => "no score".to_owned(),
            };
            Line::from(vec![
                Span::from(format!(" health {health} ")),
                Span::from(bar(part, 12)).fg(if part < 0.5 { Color::Red } else { Color::Green }),
                Span::from(format!("  {score}")),
            ])
        }
    }
}

/// What stands behind it.
fn reason_line(machine: &MachineScene, standing: Standing) -> Line<'static> {
    let contributor = machine.contributor.as_ref().map(|(point, share)| format!("{point} ({:.0} %)", 100.0 * share)).unwrap_or_default();
    match standing {
        Standing::Waiting => Line::default(),
        Standing::Learning => Line::from(format!(" {COMMISSIONING_ROWS} rows of normal running, no score yet")).dim(),
        Standing::Alarm | Standing::Advice => Line::from(format!(" look first at {contributor}")),
        _ => Line::from(format!(" mostly by {contributor}")).dim(),
    }
}

/// Score against its limit over time. The upper third (at least a row) is over the limit, whose line is drawn.
fn draw_curve(frame: &mut Frame<'_>, machine: &MachineScene, area: Rect) {
    let (Some(_), true) = (machine.limit, area.height >= 2 && area.width >= 8) else { return };
    let label = "limit";
    let columns = area.width.saturating_sub(label.len() as u16 + 1);
    let over = (area.height / 3).max(1);
    let under = area.height - over;
    let newest = machine.history.iter().rev().take(columns.into()).rev();
    let buffer = frame.buffer_mut();
    for x in 0..columns {
        buffer[(area.x + x, area.y + over - 1)].set_symbol("▁").set_style(Style::new().fg(Color::DarkGray));
    }
    buffer.set_string(area.x + columns + 1, area.y + over - 1, label, Style::new().fg(Color::DarkGray));
    for (x, part) in (area.x..).zip(newest) {
        // Rows above the bottom, in eighths; the limit is the upper edge of the rows under it.
        let mut eighths = (part * f64::from(under) * 8.0).round().clamp(0.0, f64::from(area.height) * 8.0) as u16;
        let style = Style::new().fg(if *part > 1.0 { Color::Red } else { Color::Green });
        for y in (area.y..area.y + area.height).rev() {
            if eighths == 0 {
                break;
            }
            buffer[(x, y)].set_symbol(EIGHTHS[usize::from(eighths.min(8)) - 1]).set_style(style);
            eighths = eighths.saturating_sub(8);
        }
    }
}

const EIGHTHS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

fn draw_path(frame: &mut Frame<'_>, scene: &Scene, brokers: &str, area: Rect) {
    let counted = format!(" {} missing, {} twice ", scene.ledger.holes(), scene.ledger.duplicates());
    let way = match (brokers.contains("Kafka: embedded"), brokers.contains("MQTT: embedded")) {
        (true, true) => " Way to Kafka (embedded stand-ins) ",
        (true, false) => " Way to Kafka (an embedded stand-in) ",
        (false, true) => " Way to Kafka (MQTT is an embedded stand-in) ",
        (false, false) => " Way to Kafka ",
    };
    let frame_box = Block::bordered().title(Line::from(way).bold()).title(Line::from(counted).right_aligned());
    let now = Instant::now();
    let [mut flow, buffer, mut kafka] = plain::data_path(scene, now).map(|line| Line::from(format!(" {line}")));
    if !scene.agent_ended && (scene.pulse.silent(now).is_some() || matches!(scene.pulse.link(now), Link::Away(_))) {
        flow = flow.fg(Color::Red);
    }
    if let Some(problem) = &scene.problem {
        kafka = Line::from(format!(" in Kafka: {problem}")).fg(Color::Red);
    }
    let lines = vec![flow, buffer, kafka];
    frame.render_widget(Paragraph::new(lines).block(frame_box), area);
}

/// For small terminals.
fn draw_lines(frame: &mut Frame<'_>, scene: &Scene, run_for: Option<Duration>) {
    let mut lines = vec![header(scene, frame.area().width, run_for)];
    lines.extend(plain::status(scene).into_iter().map(Line::from));
    lines.push(Line::default());
    lines.push(Line::from(story::legend(scene)));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), frame.area());
}

fn bar(part: f64, cells: usize) -> String {
    let full = (part.clamp(0.0, 1.0) * cells as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(cells - full))
}

fn sign(standing: Standing) -> &'static str {
    match standing {
        Standing::Alarm | Standing::Advice => "■",
        Standing::Warning => "▲",
        Standing::Returned => "◇",
        Standing::Normal => "●",
        Standing::Learning => "◌",
        Standing::Waiting => "·",
    }
}

fn colour(standing: Standing) -> Color {
    match standing {
        Standing::Alarm => Color::Red,
        Standing::Advice => Color::LightRed,
        Standing::Warning | Standing::Returned => Color::Yellow,
        Standing::Normal => Color::Green,
        Standing::Learning => Color::Cyan,
        Standing::Waiting => Color::DarkGray,
    }
}

#[cfg(test)]
mod tests {
    use crate::pulse::Scrape;
    use hark_protocol::topics::Phase;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn picture(scene: &Scene, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, scene, "Kafka: embedded stand-in; MQTT: embedded stand-in", Some(Duration::from_secs(90)))).unwrap();
        let buffer = terminal.backend().buffer();
        (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>() + "\n").collect()
    }

    fn scored() -> Scene {
        let mut scene = Scene::new(Instant::now());
        for machine in &mut scene.machines {
            (machine.phase, machine.health, machine.score, machine.limit) = (Some(Phase::Scoring), Some(97.0), Some(0.9), Some(1.5));
            machine.history = (0..200).map(|n| f64::from(n) / 100.0).collect();
        }
        scene
    }

    #[test]
    fn a_small_terminal_shows_every_machine_the_way_and_the_legend() {
        let picture = picture(&scored(), 80, 24);
        for expected in [
            "pump-1",
            "fan-7",
            "(embedded stand-ins)",
            "motor-3",
            "running normally",
            "health  97",
            "score 0.90 of 1.50",
            "limit",
            "in Kafka:",
            "Normal running",
            "of 1:30",
        ] {
            assert!(picture.contains(expected), "{expected} in\n{picture}");
        }
    }

    #[test]
    fn an_outage_is_shown_where_it_is() {
        let mut scene = scored();
        let mut at = Instant::now();
        let mut answer = |waiting| {
            at += Duration::from_secs(2);
            let scrape = Scrape { connected: true, waiting: [waiting, 0, 0, 0], ..Scrape::default() };
            scene.scraped(scrape, at);
        };
        for waiting in [0, 20, 40] {
            answer(waiting);
        }
        scene.problem = Some("cannot be read back at present".to_owned());
        let picture = picture(&scene, 80, 24);
        for expected in ["Kafka away for ", "inputs 40", "in Kafka: cannot be read back"] {
            assert!(picture.contains(expected), "{expected} in\n{picture}");
        }
    }

    #[test]
    fn no_size_makes_it_panic() {
        for (width, height) in [(1, 1), (20, 5), (75, 40), (76, 24), (80, 24), (200, 60), (300, 24)] {
            picture(&scored(), width, height);
            picture(&Scene::new(Instant::now()), width, height);
        }
    }
}
