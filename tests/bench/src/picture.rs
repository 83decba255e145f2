//! Curves as an SVG picture: both axes grow by factors of ten.

use crate::report::duration;

/// One curve: sizes, each with its time in seconds.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(usize, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 40.0;
/// The space below the curves for the sizes and the names.
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 5] = ["#0b6e99", "#b5541c", "#4c7a34", "#7a3b8f", "#9a8200"];

/// Draws curves.
pub(crate) fn picture<'a>(title: &str, series: impl Iterator<Item = &'a Series>) -> String {
    let series: Vec<_> = series.collect();
    let all = || series.iter().flat_map(|series| &series.points);
    let sizes = range(all().map(|(size, _)| *size as f64));
    let seconds = range(all().map(|(_, seconds)| *seconds));
    let x = |size: f64| LEFT + share(size, sizes) * (WIDTH - LEFT - RIGHT);
    let y = |seconds_at: f64| TOP + (1.0 - share(seconds_at, seconds)) * (HEIGHT - TOP - BOTTOM);
    let whole = HEIGHT + 20.0 * series.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {whole}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{whole}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n"
    );
    for exponent in seconds.0..=seconds.1 {
        let at = 10f64.powi(exponent);
        line(&mut svg, (LEFT, y(at)), (WIDTH - RIGHT, y(at)));
        text(&mut svg, (LEFT - 8.0, y(at) + 4.0), "end", &duration(at));
    }
    for exponent in sizes.0..=sizes.1 {
        let at = 10f64.powi(exponent);
        line(&mut svg, (x(at), TOP), (x(at), HEIGHT - BOTTOM));
        text(&mut svg, (x(at), HEIGHT - BOTTOM + 18.0), "middle", &format!("{at}"));
    }
    for ((number, series), colour) in series.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let points =
            series.points.iter().map(|(size, at)| format!("{:.1},{:.1}", x(*size as f64), y(*at)));
        let points = points.collect::<Vec<_>>().join(" ");
        write(
            &mut svg,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
            ),
        );
        let below = HEIGHT + 20.0 * number as f64;
        let (from, to) = (LEFT, LEFT + 24.0);
        write(
            &mut svg,
            format_args!(
                "<line x1=\"{from}\" y1=\"{below}\" x2=\"{to}\" y2=\"{below}\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
            ),
        );
        text(&mut svg, (to + 8.0, below + 4.0), "start", &series.name);
    }
    svg + "</svg>\n"
}

/// Returns the powers of ten between which all values are.
fn range(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let logarithms = values.filter(|value| *value > 0.0).map(f64::log10);
    let (least, most) =
        logarithms.fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(at), most.max(at)));
    if least > most {
        return (0, 1);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a time or a size is small")]
    let (from, to) = (least.floor() as i32, most.ceil() as i32);
    (from, to.max(from + 1))
}

fn share(value: f64, (from, to): (i32, i32)) -> f64 {
    (value.max(f64::MIN_POSITIVE).log10() - f64::from(from)) / f64::from(to - from)
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    write(
        svg,
        format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>\n"
        ),
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, what: &str) {
    write(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>\n"),
    );
}

fn write(svg: &mut String, what: std::fmt::Arguments<'_>) {
    svg.push_str(&what.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_that_does_not_grow_is_level() {
        let level =
            Series { name: "level".to_owned(), points: vec![(1_000, 0.002), (100_000, 0.002)] };
        let drawn = picture("A picture", [&level].into_iter());
        let points =
            drawn.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let heights: Vec<_> =
            points.split(' ').map(|point| point.split(',').nth(1).unwrap()).collect();
        assert_eq!(heights[0], heights[1]);
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
    }
}
