//! One table as a picture: a horizontal bar per row, its length the ratio Ottla : other on a logarithmic axis. SVG, written
//! by hand, since a bar and a label are all it takes.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 22.0;

/// One bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) ratio: f64,
}

/// One picture: bars of one figure. `lower_is_better` says which side of 1 is Ottla's.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lower_is_better: bool,
    /// A goal for the ratio, if the table has one for all rows.
    pub(crate) bars: Vec<Bar>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Powers of two around what is shown, one at least on each side of 1.
fn range(panels: &[Panel]) -> (f64, f64) {
    let logs = panels.iter().flat_map(|p| &p.bars).map(|b| b.ratio.max(1e-4).log2());
    let (low, high) = logs.fold((-1.0_f64, 1.0_f64), |(low, high), l| (low.min(l), high.max(l)));
    (low.floor(), high.ceil())
}

fn tick(power: i32) -> String {
    if power >= 0 { format!("{}x", 1_u64 << power.min(40)) } else { format!("1/{}", 1_u64 << (-power).min(40)) }
}

/// Panels below each other, with one axis.
pub(crate) fn svg(title: &str, panels: &[Panel]) -> String {
    let (low, high) = range(panels);
    let rows: usize = panels.iter().map(|p| p.bars.len()).sum();
    let height = 60.0 + panels.len() as f64 * 44.0 + rows as f64 * ROW;
    let x = |ratio: f64| LABELS + (ratio.max(1e-4).log2() - low) / (high - low) * (WIDTH - LABELS - RIGHT);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>",
        escape(title)
    );
    let mut y = 44.0;
    for panel in panels {
        y = panel_svg(&mut out, panel, y, (low as i32, high as i32), &x);
    }
    out.push_str("</svg>\n");
    out
}

fn panel_svg(out: &mut String, panel: &Panel, top: f64, range: (i32, i32), x: &impl Fn(f64) -> f64) -> f64 {
    let side = if panel.lower_is_better { "left of 1: Ottla is better" } else { "right of 1: Ottla is better" };
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"{}\" font-weight=\"bold\">{}</text><text x=\"{}\" y=\"{}\" fill=\"#777\" \
         text-anchor=\"end\">{side}</text>",
        top + 14.0,
        escape(&panel.title),
        WIDTH - 8.0,
        top + 14.0
    );
    let (first, last) = (top + 24.0, top + 24.0 + panel.bars.len() as f64 * ROW);
    let step = ((range.1 - range.0) / 8).max(1);
    for power in (range.0..=range.1).filter(|p| p % step == 0) {
        let at = x(f64::from(power).exp2());
        let colour = if power == 0 { "#444" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{first}\" x2=\"{at:.1}\" y2=\"{last}\" stroke=\"{colour}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" fill=\"#777\" font-size=\"10\" text-anchor=\"middle\">{}</text>",
            last + 11.0,
            tick(power)
        );
    }
    let mut y = first;
    for bar in &panel.bars {
        let (one, end) = (x(1.0), x(bar.ratio));
        let is_better = (bar.ratio < 1.0) == panel.lower_is_better;
        let colour = if is_better { "#2a7f62" } else { "#c0504d" };
        let label_at = if end >= one { end + 4.0 } else { one + 4.0 };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" \
             height=\"{}\" fill=\"{colour}\"/><text x=\"{label_at:.1}\" y=\"{}\">{}</text>",
            LABELS - 8.0,
            y + 15.0,
            escape(&bar.label),
            end.min(one),
            y + 4.0,
            (end - one).abs().max(1.0),
            ROW - 8.0,
            y + 15.0,
            crate::table::short(bar.ratio)
        );
        y += ROW;
    }
    last + 20.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_bar_and_labels_are_escaped() {
        let bars = vec![Bar { label: "a < b".to_owned(), ratio: 0.25 }, Bar { label: "c".to_owned(), ratio: 3.0 }];
        let text = svg("T & T", &[Panel { title: "CPU".to_owned(), lower_is_better: true, bars }]);
        assert_eq!(text.matches("<rect").count(), 3, "the ground and two bars");
        assert!(text.contains("a &lt; b") && text.contains("T &amp; T"));
    }
}
