//! `compose.yaml` against everything it repeats: the settings of the stack without Docker in `services/`, the
//! pipelines' environment names, the Dockerfile's packages. No Docker is needed; nothing is started.

use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_yaml::from_str(&read("compose.yaml")).expect("compose.yaml is YAML")
}

fn service<'a>(compose: &'a Value, name: &str) -> &'a Value {
    compose["services"].get(name).unwrap_or_else(|| panic!("compose.yaml has no service `{name}`"))
}

fn names(mapping: &Value) -> BTreeSet<&str> {
    mapping.as_mapping().into_iter().flatten().filter_map(|(key, _)| key.as_str()).collect()
}

/// The items of a list of strings; an absent list is empty.
fn items(list: &Value) -> Vec<&str> {
    list.as_sequence().into_iter().flatten().map(|item| item.as_str().expect("a list of strings")).collect()
}

/// The entries of an `environment:` mapping.
fn environment(service: &Value) -> BTreeMap<&str, &str> {
    let mapping = service["environment"].as_mapping().expect("environment is a mapping");
    mapping.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} must be a string: quote it"))
}

/// Puts the defaults in for `${NAME:-default}`, as compose does when nothing is set.
fn with_defaults(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').expect("`${` is closed");
    let (_, default) = variable.split_once(":-").unwrap_or_else(|| panic!("`{variable}` has no default"));
    format!("{before}{default}{}", with_defaults(after))
}

struct Published {
    service: String,
    /// The variable that moves the port, where there is one.
    variable: Option<String>,
    address: String,
    host: u16,
    container: u16,
}

/// All published ports, written as `ADDRESS:HOST:CONTAINER`.
fn published(compose: &Value) -> Vec<Published> {
    let mut all = Vec::new();
    for name in names(&compose["services"]) {
        for line in items(&service(compose, name)["ports"]) {
            let plain = with_defaults(line);
            let [address, host, container] = plain.split(':').collect::<Vec<_>>()[..] else {
                panic!("`{line}` of {name} is not ADDRESS:HOST:CONTAINER")
            };
            let variable = line.rsplit_once("${").and_then(|(_, rest)| rest.split_once(":-"));
            all.push(Published {
                service: name.to_owned(),
                variable: variable.map(|(variable, _)| variable.to_owned()),
                address: address.to_owned(),
                host: host.parse().expect("a host port"),
                container: container.parse().expect("a container port"),
            });
        }
    }
    all
}

/// The host ports that more than one entry publishes, with the services that do.
fn clashes(compose: &Value) -> Vec<(u16, Vec<String>)> {
    let mut by_port: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for port in published(compose) {
        by_port.entry(port.host).or_default().push(port.service);
    }
    by_port.into_iter().filter(|(_, services)| services.len() > 1).collect()
}

#[test]
fn no_two_services_publish_the_same_port() {
    assert_eq!(clashes(&compose()), []);
}

#[test]
fn a_port_clash_is_found() {
    let clashing = "
services:
  clickhouse: { ports: ['127.0.0.1:${TCP:-9000}:9000', '127.0.0.1:8123:8123'] }
  console: { ports: ['127.0.0.1:9000:8080'] }
";
    let clashing = serde_yaml::from_str(clashing).expect("YAML");
    assert_eq!(clashes(&clashing), [(9000, vec!["clickhouse".to_owned(), "console".to_owned()])]);
}

#[test]
fn ports_are_published_on_the_loopback_address_only() {
    for port in published(&compose()) {
        assert_eq!(port.address, "127.0.0.1", "port {} of {}", port.host, port.service);
    }
}

#[test]
fn the_web_ui_leaves_port_9000_to_clickhouse() {
    let compose = compose();
    let ui = published(&compose).into_iter().find(|port| port.service == "console").expect("console has a port");
    assert_eq!(ui.host, 8080);
    assert!(published(&compose).iter().any(|port| port.service == "clickhouse" && port.host == 9000));
}

#[test]
fn the_stack_has_its_services_and_apache_kafka_is_a_profile() {
    let compose = compose();
    let expected = ["clickhouse", "console", "kafka", "mosquitto", "redpanda", "streamer"];
    assert_eq!(names(&compose["services"]), BTreeSet::from(expected));
    for name in expected {
        let profiles = items(&service(&compose, name)["profiles"]);
        let expected: &[&str] = if name == "kafka" { &["kafka"] } else { &[] };
        assert_eq!(profiles, expected, "profiles of {name}");
    }
}

#[test]
fn images_have_a_version_and_data_a_volume() {
    let compose = compose();
    for name in names(&compose["services"]) {
        let service = service(&compose, name);
        let (_, tag) = text(&service["image"]).split_once(':').unwrap_or_else(|| panic!("{name} has no image tag"));
        assert_ne!(tag, "latest", "image of {name}");
        assert_eq!(items(&service["networks"]), ["streamer"], "networks of {name}");
        for volume in items(&service["volumes"]) {
            let (source, _) = volume.split_once(':').expect("SOURCE:TARGET");
            if let Some(file) = source.strip_prefix("./") {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{name} mounts {file}: not there");
            } else {
                assert!(names(&compose["volumes"]).contains(source), "{name} uses the undeclared volume {source}");
            }
        }
    }
}

/// `ports.py` has one line per port: `"mqtt": Port("mosquitto", "STREAMER_MQTT_PORT", 1883),`.
#[test]
fn well_known_ports_are_those_of_the_stack_without_docker() {
    let source = read("services/local/ports.py");
    let native: BTreeMap<String, u16> = source
        .lines()
        .filter_map(|line| line.split_once(": Port(")?.1.strip_suffix("),"))
        .map(|arguments| {
            let [_, variable, number] = arguments.split(", ").collect::<Vec<_>>()[..] else {
                panic!("`{arguments}` is not SERVICE, VARIABLE, NUMBER")
            };
            (variable.trim_matches('"').to_owned(), number.parse().expect("a port"))
        })
        // Inside a container nobody but the broker itself speaks to the controller.
        .filter(|(variable, _)| variable != "STREAMER_KAFKA_CONTROLLER_PORT")
        .collect();
    let ports = published(&compose());
    let docker: BTreeMap<String, u16> = ports
        .into_iter()
        .filter(|port| !matches!(port.service.as_str(), "console" | "kafka"))
        .map(|port| (port.variable.expect("a variable"), port.host))
        .collect();
    assert_eq!(docker, native);
}

#[test]
fn mosquitto_runs_on_the_shared_file() {
    let compose = compose();
    let mounts = items(&service(&compose, "mosquitto")["volumes"]);
    assert!(mounts.contains(&"./services/mosquitto.conf:/mosquitto/config/mosquitto.conf:ro"));
    let file = read("services/mosquitto.conf");
    let listeners: BTreeSet<u16> = file
        .lines()
        .filter_map(|line| line.strip_prefix("listener "))
        .map(|port| port.parse().expect("a port alone: in a container it must listen on every address"))
        .collect();
    let ports = published(&compose);
    let targets = ports.iter().filter(|port| port.service == "mosquitto").map(|port| port.container).collect();
    assert_eq!(listeners, targets);
    let location = file.lines().find_map(|line| line.strip_prefix("persistence_location ")).expect("a data folder");
    assert!(mounts.contains(&format!("mosquitto-data:{}", location.trim_end_matches('/')).as_str()));
}

/// Settings of `kafka.properties` that hold wherever the broker runs: those without a placeholder in their value.
fn kafka_properties() -> BTreeMap<String, String> {
    let file = read("services/kafka.properties");
    let settings = file.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    settings
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("`{line}` is not NAME=VALUE")))
        .filter(|(_, value)| !value.contains("${"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn apache_kafka_has_the_same_settings_in_a_container() {
    let compose = compose();
    let container = environment(service(&compose, "kafka"));
    let differs_on_purpose = ["listener.security.protocol.map"]; // a container has two listeners for clients
    for (name, value) in kafka_properties() {
        if differs_on_purpose.contains(&name.as_str()) {
            continue;
        }
        let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
        assert_eq!(container.get(variable.as_str()), Some(&value.as_str()), "{variable} for {name}");
    }
}

#[test]
fn redpanda_has_the_same_settings_under_its_own_names() {
    let compose = compose();
    let mounts = items(&service(&compose, "redpanda")["volumes"]);
    assert!(mounts.contains(&"./services/redpanda.yaml:/etc/redpanda/.bootstrap.yaml:ro"));
    let redpanda: Value = serde_yaml::from_str(&read("services/redpanda.yaml")).expect("YAML");
    let kafka = kafka_properties();
    for (theirs, ours) in [
        ("auto_create_topics_enabled", "auto.create.topics.enable"),
        ("default_topic_partitions", "num.partitions"),
        ("group_initial_rebalance_delay", "group.initial.rebalance.delay.ms"),
        ("group_topic_partitions", "offsets.topic.num.partitions"),
    ] {
        let value = serde_yaml::to_string(&redpanda[theirs]).expect("a plain value");
        assert_eq!(value.trim(), kafka[ours], "{theirs} of redpanda.yaml, {ours} of kafka.properties");
    }
}

#[test]
fn versions_are_those_of_the_stack_without_docker() {
    let compose = compose();
    let pom = read("services/pom.xml");
    let kafka = pom.split("<kafka.version>").nth(1).and_then(|rest| rest.split('<').next()).expect("kafka.version");
    assert_eq!(text(&service(&compose, "kafka")["image"]), format!("apache/kafka:{kafka}"));

    let install = read("services/local/install.py");
    let chdb = install.lines().find_map(|line| line.strip_prefix("CHDB_VERSION = ")).expect("CHDB_VERSION");
    let minor: Vec<&str> = chdb.trim_matches('"').split('.').take(2).collect();
    let image = format!("clickhouse/clickhouse-server:{}", minor.join("."));
    assert_eq!(text(&service(&compose, "clickhouse")["image"]), image);
}

#[test]
fn clickhouse_lets_the_default_user_in_without_a_password() {
    let compose = compose();
    let server = environment(service(&compose, "clickhouse"));
    assert_eq!(server, BTreeMap::from([("CLICKHOUSE_SKIP_USER_SETUP", "1")]));
    let client = environment(service(&compose, "streamer"));
    assert_eq!((client["CLICKHOUSE_USER"], client["CLICKHOUSE_PASSWORD"]), ("default", ""));
    let mounts = items(&service(&compose, "clickhouse")["volumes"]);
    assert!(mounts.contains(&"./schemas/telemetry.sql:/docker-entrypoint-initdb.d/telemetry.sql:ro"));
}

#[test]
fn streamer_gets_only_variables_that_it_reads() {
    let pipelines = read("pipelines/mqtt-to-kafka.yaml") + &read("pipelines/kafka-to-clickhouse.yaml");
    let command = read("src/cli/run.rs");
    let compose = compose();
    for name in environment(service(&compose, "streamer")).into_keys() {
        let is_read = pipelines.contains(&format!("${{{name}}}"))
            || pipelines.contains(&format!("${{{name}:-"))
            || command.contains(&format!("env = \"{name}\""));
        assert!(is_read, "compose.yaml passes {name} to streamer, but neither a pipeline nor `run` reads it");
    }
}

#[test]
fn the_dockerfile_installs_the_build_packages_of_setup() {
    let install = read("services/local/install.py");
    let list = install.lines().find_map(|line| line.strip_prefix("BUILD_PACKAGES = ")).expect("BUILD_PACKAGES");
    let packages = list.trim_matches(['[', ']']).replace(['"', ','], "");
    let dockerfile = read("Dockerfile");
    assert!(
        dockerfile.contains(&format!("--no-install-recommends {packages} ")),
        "the build stage of the Dockerfile installs other packages than `{packages}`"
    );
}
