//! Plots as SVG: panels one below the other over the same hours. All coordinates are integers, so that a plot is the same wherever
//! it is drawn.

use std::fmt::Write as _;
use std::time::Duration;

use ottla_protocol::ids::NodeId;

use super::world::{Kind, World};

const WIDTH: u64 = 960;
const LEFT: u64 = 70;
const RIGHT: u64 = 30;
const HEIGHT: u64 = 190;
const GAP: u64 = 110;
const TOP: u64 = 40;
const COLOURS: [&str; 7] = ["#0b69a3", "#b44d12", "#2f8132", "#8a3ffc", "#c2185b", "#6b5b00", "#111827"];

/// A line; `step`: it jumps from one value to the next.
struct Line {
    name: String,
    colour: &'static str,
    dashes: &'static str,
    step: bool,
    points: Vec<(Duration, u64)>,
}

/// Moments that are marked at the foot of a panel.
struct Marks {
    name: &'static str,
    colour: &'static str,
    at: Vec<Duration>,
}

pub(super) struct Panel {
    unit: &'static str,
    lines: Vec<Line>,
    marks: Vec<Marks>,
}

pub(super) struct Plot {
    pub(super) title: &'static str,
    /// From and to.
    pub(super) minutes: (u64, u64),
    pub(super) panels: Vec<Panel>,
}

fn marks(world: &World, name: &'static str, kind: Kind, colour: &'static str) -> Marks {
    let at = world.steps.iter().filter(|step| step.kind == kind).map(|step| step.at).collect();
    Marks { name, colour, at }
}

impl Panel {
    pub(super) fn load_and_capacity(world: &World) -> Self {
        let line = |name: &str, colour, step, of: fn(&super::world::Sample) -> u64| Line {
            name: name.to_owned(),
            colour,
            dashes: "",
            step,
            points: world.samples.iter().map(|sample| (sample.at, of(sample) / 1_000_000)).collect(),
        };
        let capacity =
            line("capacity: half of what its shards have room for", COLOURS[1], true, |sample| sample.capacity);
        let load = line("load of the topic", COLOURS[0], false, |sample| sample.load);
        Self { unit: "MB/s", lines: vec![capacity, load], marks: Vec::new() }
    }

    pub(super) fn shards(world: &World) -> Self {
        let points = world.samples.iter().map(|sample| (sample.at, sample.shards as u64)).collect();
        let line = Line { name: "shards of its own".to_owned(), colour: COLOURS[2], dashes: "", step: true, points };
        let marks = vec![
            marks(world, "split", Kind::Split, COLOURS[0]),
            marks(world, "merge, or move for one", Kind::Merge, COLOURS[1]),
        ];
        Self { unit: "shards", lines: vec![line], marks }
    }

    /// What each node takes in and sends out.
    pub(super) fn nodes(world: &World) -> Self {
        let nodes = world.image().nodes.keys().copied();
        let line = |(at, node): (usize, NodeId)| {
            let of = |sample: &super::world::Sample| sample.nodes.get(&node).copied().unwrap_or(0) / 1_000_000;
            let points = world.samples.iter().map(|sample| (sample.at, of(sample))).collect();
            let dashes = ["", "7 3", "2 3"][at / 3];
            Line { name: format!("node {node}"), colour: COLOURS[at % 3], dashes, step: true, points }
        };
        let lines = nodes.enumerate().map(line).collect();
        let marks = vec![
            marks(world, "replica moved", Kind::Move, COLOURS[3]),
            marks(world, "leader changed", Kind::Election, COLOURS[4]),
        ];
        Self { unit: "MB/s of each node (blue: zone 1, orange: zone 2, green: zone 3)", lines, marks }
    }

    fn most(&self) -> u64 {
        self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).max().unwrap_or(1).max(1)
    }
}

/// A round number, four to eight of which make up the whole.
fn interval(whole: u64, of: &[u64]) -> u64 {
    let decades = (0..9).flat_map(|power| of.iter().map(move |step| step * 10_u64.pow(power)));
    decades.into_iter().find(|step| whole / step <= 8).unwrap_or(whole)
}

impl Plot {
    /// Compares it with the file in the documentation, or writes it.
    pub(super) fn check(&self, name: &str) {
        let path = format!("{}/../docs/resizing/{name}.svg", env!("CARGO_MANIFEST_DIR"));
        let svg = self.svg();
        if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
            #[allow(clippy::disallowed_methods)]
            std::fs::write(&path, &svg).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == svg, "{path} differs: OTTLA_WRITE_DOCS=1 cargo test -p ottla-broker --lib scenarios");
    }

    fn x(&self, at: Duration) -> u64 {
        let (from, to) = (self.minutes.0 * 60_000, self.minutes.1 * 60_000);
        let at = u64::try_from(at.as_millis()).unwrap().clamp(from, to);
        LEFT + (at - from) * (WIDTH - LEFT - RIGHT) / (to - from)
    }

    fn svg(&self) -> String {
        let height = TOP + self.panels.len() as u64 * (HEIGHT + GAP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2933\">\n\
             <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"14\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n",
            title = self.title
        );
        for (at, panel) in (0..).zip(&self.panels) {
            self.draw(&mut svg, panel, TOP + at * (HEIGHT + GAP) + 50);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String, panel: &Panel, top: u64) {
        let (most, right, foot) = (panel.most(), WIDTH - RIGHT, top + HEIGHT);
        let rise = interval(most, &[1, 2, 5]);
        let whole = most.div_ceil(rise) * rise;
        let y = |value: u64| foot - value * HEIGHT / whole;
        for value in (0..=whole / rise).map(|at| at * rise) {
            let at = y(value);
            let _ = write!(svg, "<path d=\"M{LEFT} {at}H{right}\" stroke=\"#d9e2ec\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value}</text>", LEFT - 8, at + 4);
        }
        let (from, to) = self.minutes;
        let (every, of_one, unit) = if to - from > 180 {
            (interval((to - from) / 60, &[1, 2, 4, 6, 12, 24]), 60, "h")
        } else {
            (interval(to - from, &[1, 2, 3, 5]), 1, "min")
        };
        for at in (from / of_one / every..=to / of_one / every).map(|at| at * every) {
            let x = self.x(Duration::from_secs(at * of_one * 60));
            let _ = write!(svg, "<path d=\"M{x} {top}V{}\" stroke=\"#d9e2ec\"/>", foot + 4);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{at} {unit}</text>", foot + 20);
        }
        let _ = writeln!(svg, "<text x=\"14\" y=\"{}\" font-weight=\"bold\">{}</text>", top - 32, panel.unit);
        let mut x = LEFT;
        for line in &panel.lines {
            let Line { colour, dashes, name, .. } = line;
            let points = self.path(line, y);
            let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"");
            let _ = writeln!(svg, "<path d=\"{points}\" {style}/>");
            let _ = write!(svg, "<path d=\"M{x} {}h24\" {style}/>", top - 14);
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{name}</text>", x + 28, top - 10);
            x += if panel.lines.len() > 2 { 46 + 5 * name.len() as u64 } else { 46 + 7 * name.len() as u64 };
        }
        let mut x = 40 + 8 * panel.unit.len() as u64;
        for (row, Marks { name, colour, at }) in (0..).zip(&panel.marks) {
            let y = foot + 28 + 10 * row;
            let mut last = 0;
            for x in at.iter().filter(|at| **at <= Duration::from_secs(to * 60)).map(|at| self.x(*at)) {
                if x != last {
                    let _ = write!(svg, "<path d=\"M{x} {y}v8\" stroke=\"{colour}\" stroke-width=\"2\"/>");
                }
                last = x;
            }
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" fill=\"{colour}\">| {name}</text>", top - 32);
            x += 30 + 7 * name.len() as u64;
        }
    }

    /// One point for each place, the last of those that fall on it.
    fn path(&self, line: &Line, y: impl Fn(u64) -> u64) -> String {
        let end = Duration::from_secs(self.minutes.1 * 60);
        let mut points: Vec<(u64, u64)> = Vec::new();
        for (at, value) in line.points.iter().filter(|(at, _)| *at <= end) {
            let point = (self.x(*at), y(*value));
            if points.last().is_some_and(|last| last.0 == point.0) {
                points.pop();
            }
            points.push(point);
        }
        let mut path = String::new();
        let (mut before, mut last) = (0, None);
        for (x, y) in points {
            let _ = match last {
                None => write!(path, "M{x} {y}"),
                Some(last) if last == y => Ok(()),
                Some(_) if line.step => write!(path, "H{x}V{y}"),
                Some(_) => write!(path, "H{before}L{x} {y}"),
            };
            (before, last) = (x, Some(y));
        }
        let _ = write!(path, "H{}", self.x(end));
        path
    }
}
