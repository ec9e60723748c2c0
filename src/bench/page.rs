//! The report as one page that needs nothing else: tables, and charts as SVG.

use super::report::{QUANTILES, checks, costs, latency, number, rates};
use super::run::Outcome;
use super::tally::Span;
use plotters::prelude::*;
use std::fmt::Write;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 320;
const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44), RGBColor(214, 39, 40)];
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse}\
td,th{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}\
.good{color:#170}.bad{color:#b00;font-weight:bold}";

/// A line of a chart.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The page.
pub fn page(title: &str, outcome: &Outcome) -> Result<String, String> {
    let mut out = String::new();
    let mut put = |text: String| out.push_str(&text);
    put("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">".to_owned());
    put(format!("<title>ringmq bench</title><style>{STYLE}</style></head><body>"));
    put(format!("<h1>{}</h1><p>measured: {:.2} s</p>", escape(title), outcome.window_s));
    put(match outcome.verdict.failures.as_slice() {
        [] => "<p class=\"good\">all checks held</p>".to_owned(),
        failures => format!("<p class=\"bad\">failed: {}</p>", escape(&failures.join("; "))),
    });
    put("<table>".to_owned());
    for (name, value, unit) in rates(outcome).into_iter().chain(costs(outcome)) {
        put(row(&[name, format!("{} {unit}", number(value))]));
    }
    put(format!("</table><h2>Latency</h2>{}", latencies(outcome)));
    let charts: [(&str, &str, Vec<Curve>); 5] = [
        ("Latency by percentile", "ms", distribution(outcome)),
        (
            "Messages per second",
            "/s",
            over_time(outcome, &["sent", "received", "connects"], |row| {
                [Some(row.rates[1]), Some(row.rates[2]), Some(row.rates[0])]
            }),
        ),
        (
            "Latency over time",
            "ms",
            over_time(outcome, &["median", "99 %", "maximum"], |row| {
                let at = |n: usize| row.latency_ns.map(|latency| latency[n] as f64 / 1e6);
                [at(0), at(1), at(2)]
            }),
        ),
        (
            "Clients online",
            "",
            over_time(outcome, &["online", "errors", ""], |row| {
                [Some(row.online as f64), Some(row.errors as f64), None]
            }),
        ),
        (
            "CPU (cores) and memory of the broker (100 MiB)",
            "",
            over_time(outcome, &["broker", "generator", "memory"], |row| {
                [row.cores.0, Some(row.cores.1), row.rss_kib.map(|kib| kib as f64 / 102_400.0)]
            }),
        ),
    ];
    for (index, (name, unit, curves)) in charts.iter().enumerate() {
        if !curves.is_empty() {
            let svg = chart(unit, curves, index == 0).map_err(|e| format!("cannot draw {name}: {e}"))?;
            put(format!("<h2>{name}</h2>{svg}"));
        }
    }
    put("<h2>Checks</h2><table>".to_owned());
    for (name, count) in checks(outcome) {
        put(row(&[name.to_owned(), number(count as f64)]));
    }
    put("</table>".to_owned());
    if !outcome.causes.is_empty() {
        put("<h2>Errors</h2><table>".to_owned());
        outcome.causes.iter().for_each(|(cause, n)| put(row(&[cause.to_string(), number(*n as f64)])));
        put("</table>".to_owned());
    }
    put(format!(
        "<p>ringmq {}; generator: {}</p></body></html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&outcome.driver)
    ));
    Ok(out)
}

fn row(cells: &[String]) -> String {
    let mut out = "<tr>".to_owned();
    for cell in cells {
        // Writing to a string does not fail.
        let _ = write!(out, "<td>{}</td>", escape(cell));
    }
    out + "</tr>"
}

fn latencies(outcome: &Outcome) -> String {
    let mut out = "<table><tr><th></th><th>count</th>".to_owned();
    for (name, _) in QUANTILES {
        // Writing to a string does not fail.
        let _ = write!(out, "<th>{name}</th>");
    }
    out += "</tr>";
    for span in Span::ALL {
        let histogram = outcome.latencies.of(span);
        if !histogram.is_empty() {
            let mut cells = vec![span.name().replace('_', " "), number(histogram.len() as f64)];
            cells.extend(
                QUANTILES.iter().map(|(_, quantile)| latency(histogram.value_at_quantile(*quantile))),
            );
            out += &row(&cells);
        }
    }
    out + "</table>"
}

/// Latency by percentile: x counts nines, so that 1 is 90 %, 2 is 99 %.
fn distribution(outcome: &Outcome) -> Vec<Curve> {
    let curve = |span: Span| {
        let histogram = outcome.latencies.of(span);
        let nines = (histogram.len().max(1) as f64).log10().min(6.0);
        let point = |step: u32| {
            let x = nines * f64::from(step) / 120.0;
            (x, histogram.value_at_quantile(1.0 - 10f64.powf(-x)) as f64 / 1e6)
        };
        let name = span.name().replace('_', " ");
        (histogram.len() > 1).then(|| Curve { name, points: (0..=120).map(point).collect() })
    };
    Span::ALL.into_iter().filter_map(curve).collect()
}

fn over_time(
    outcome: &Outcome,
    names: &[&str; 3],
    values: impl Fn(&super::fleet::Row) -> [Option<f64>; 3],
) -> Vec<Curve> {
    let curve = |index: usize| {
        let point = |row| Some((super::fleet::Row::at(row), values(row)[index]?));
        let points: Vec<(f64, f64)> = outcome.rows.iter().filter_map(point).collect();
        let something = points.len() > 1 && points.iter().any(|(_, y)| *y > 0.0);
        something.then(|| Curve { name: names[index].to_owned(), points })
    };
    (0..3).filter_map(curve).collect()
}

fn chart(unit: &str, curves: &[Curve], percentiles: bool) -> Result<String, Box<dyn std::error::Error>> {
    let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let (left, right) = all().fold((f64::MAX, 0f64), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let top = all().fold(0f64, |high, (_, y)| high.max(y)) * 1.05;
    let bottom = all().map(|(_, y)| y).filter(|y| *y > 0.0).fold(top, f64::min);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder.margin(8).x_label_area_size(28).y_label_area_size(72);
        let x_label = |x: &f64| match percentiles {
            true => format!("{} %", (100.0 - 100.0 * 10f64.powf(-x)).clamp(0.0, 99.9999)),
            false => format!("{x:.0} s"),
        };
        let y_label = |y: &f64| format!("{} {unit}", short(*y));
        macro_rules! draw {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(left..right.max(left + 1e-9), $y)?;
                let x_labels = if percentiles { right.ceil() as usize + 1 } else { 10 };
                let mut mesh = chart.configure_mesh();
                mesh.x_labels(x_labels).y_labels(6).max_light_lines(0);
                mesh.x_label_formatter(&x_label).y_label_formatter(&y_label).draw()?;
                for (curve, color) in curves.iter().zip(COLORS) {
                    let points = curve.points.iter().map(|(x, y)| (*x, y.max(bottom.min(0.001))));
                    let line = LineSeries::new(points, color.stroke_width(2));
                    let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
                    chart.draw_series(line)?.label(&curve.name).legend(key);
                }
                let mut labels = chart.configure_series_labels();
                labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
            }};
        }
        if percentiles {
            draw!((bottom..top.max(bottom * 2.0)).log_scale());
        } else {
            draw!(0.0..top.max(1e-9));
        }
        area.present()?;
    }
    Ok(svg)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v if v >= 10.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
