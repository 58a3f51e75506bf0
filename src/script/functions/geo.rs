//! Places on the earth.
use geohash::Coord;

use super::{Arguments, Function, Group, finite};
use crate::script::value::Value;

pub(super) const ALL: &[Function] = &[
    Function {
        name: "geohash",
        group: Group::Places,
        signature: "geohash(lat, lon, length?)",
        summary: "The geohash of a place in degrees, of 1 to 12 characters; 9, about 5 m, unless given.",
        example: "[geohash(52.52, 13.405), geohash(52.52, 13.405, 5)]",
        gives: "[\"u33dc0cpp\", \"u33dc\"]",
        arguments: 2..=3,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "geohash", values };
            let (lat, lon) = place(arguments, 0)?;
            let length = if values.len() > 2 { arguments.count(2, 1..=12)? } else { 9 };
            let hash = geohash::encode(Coord { x: lon, y: lat }, length).map_err(|error| error.to_string())?;
            Ok(Value::Text(bump.alloc_str(&hash)))
        },
    },
    Function {
        name: "geohash_decode",
        group: Group::Places,
        signature: "geohash_decode(hash)",
        summary: "The middle of a geohash's area, in degrees.",
        example: "round(geohash_decode(\"u33dc\").lat, 2)",
        gives: "52.54",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let hash = Arguments { name: "geohash_decode", values }.text(0)?;
            let bad = || format!("`geohash_decode` cannot read `{}`", hash.chars().take(20).collect::<String>());
            // The crate panics on some of these.
            if hash.is_empty() || hash.len() > 12 || !hash.is_ascii() {
                return Err(bad());
            }
            let (Coord { x, y }, ..) = geohash::decode(hash).map_err(|_| bad())?;
            Ok(Value::Map(bump.alloc_slice_copy(&[("lat", Value::Float(y)), ("lon", Value::Float(x))])))
        },
    },
    Function {
        name: "distance_m",
        group: Group::Places,
        signature: "distance_m(lat, lon, other_lat, other_lon)",
        summary: "The way between two places in degrees along a sphere of the earth's mean radius, in metres.",
        example: "round(distance_m(52.52, 13.405, 48.137, 11.575), 0)",
        gives: "504339.0",
        arguments: 4..=4,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "distance_m", values };
            let ((lat, lon), (other_lat, other_lon)) = (place(arguments, 0)?, place(arguments, 2)?);
            let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
            // The haversine formula; rounding may take it a little past 1.
            let a = half(lat, other_lat) + lat.to_radians().cos() * other_lat.to_radians().cos() * half(lon, other_lon);
            finite("distance_m", 2.0 * EARTH_RADIUS_M * a.sqrt().min(1.0).asin())
        },
    },
];

/// The earth's mean radius, in metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// Latitude and longitude, in degrees.
fn place(arguments: Arguments<'_, '_>, at: usize) -> Result<(f64, f64), String> {
    let (lat, lon) = (arguments.float(at)?, arguments.float(at + 1)?);
    if lat.abs() <= 90.0 && lon.abs() <= 180.0 {
        return Ok((lat, lon));
    }
    Err(format!(
        "`{}` takes a latitude of -90 to 90 and a longitude of -180 to 180, not {lat} and {lon}",
        arguments.name
    ))
}
