//! Fails at once, and says what to install, where librdkafka and OpenSSL could not be built: their own errors do not say it.

use std::process::{Command, Stdio, exit};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let there =
        |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let mut missing = Vec::new();
    if !there("gcc") && !there("cc") {
        missing.push("gcc");
    }
    missing.extend(["make", "perl"].into_iter().filter(|tool| !there(tool)));
    if !missing.is_empty() {
        eprintln!("the Kafka client is built from C source and needs: {}", missing.join(", "));
        eprintln!("install them, e.g. by apt-get install {}", missing.join(" "));
        exit(1);
    }
}
