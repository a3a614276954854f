//! The load over time as an SVG.

use std::fmt::Write;
use std::time::Duration;

const WIDTH: usize = 900;
const HEIGHT: usize = 220;
const SECONDS: usize = 300;
const MARGIN: usize = 50;

/// One chart below the other, each with its name.
pub fn draw(cases: &[(&str, Vec<usize>)], away_from: Duration, away_until: Duration) -> String {
    let most = cases.iter().flat_map(|(_, counts)| counts.iter().take(SECONDS)).max().copied().unwrap_or(1).max(1);
    let total = cases.len() * (HEIGHT + MARGIN);
    let x = |second: usize| MARGIN + second * (WIDTH - 2 * MARGIN) / SECONDS;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" font-family="sans-serif" font-size="12"><rect width="{WIDTH}" height="{total}" fill="white"/>"#
    );
    for (index, (name, counts)) in cases.iter().enumerate() {
        let (top, bottom) = (index * (HEIGHT + MARGIN) + 30, (index + 1) * (HEIGHT + MARGIN) - 30);
        let height = bottom - top;
        let seconds = |time: Duration| usize::try_from(time.as_secs()).unwrap_or(0);
        let (from, until) = (x(seconds(away_from)), x(seconds(away_until)));
        let _ = write!(svg, r##"<rect x="{from}" y="{top}" width="{}" height="{height}" fill="#eee"/>"##, until - from);
        let _ = write!(svg, r#"<text x="{MARGIN}" y="{}">{name}: questions a second</text>"#, top - 10);
        let _ = write!(svg, r#"<text x="{}" y="{}">the dependency is away</text>"#, from + 5, top + 15);
        for (second, count) in counts.iter().take(SECONDS).enumerate() {
            let bar = count * height / most;
            let _ =
                write!(svg, r##"<rect x="{}" y="{}" width="2" height="{bar}" fill="#06c"/>"##, x(second), bottom - bar);
        }
        let right = WIDTH - MARGIN;
        let _ = write!(svg, r##"<path d="M{MARGIN} {bottom}H{right}" stroke="#333"/>"##);
        let _ = write!(svg, r#"<text x="5" y="{}">{most}</text><text x="5" y="{bottom}">0</text>"#, top + 10);
        for second in (0..=SECONDS).step_by(60) {
            let _ = write!(svg, r#"<text x="{}" y="{}">{second} s</text>"#, x(second), bottom + 15);
        }
    }
    svg + "</svg>\n"
}
