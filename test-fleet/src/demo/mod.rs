//! The demonstration: a fleet of real processes through good and bad days, with every promise checked
//! as it is made. The story stands in `story.rs`; here is who watches it and how it is told.

mod story;
mod table;

use std::{collections::BTreeMap, time::Duration};

use lockgate_agent::clock::{self, Stopwatch};
use lockgate_server::status::{Decision, RolloutState};
use lockgate_shared::time::Moment;

pub use story::tell;

use crate::world::{Device, Error, World};

/// What is watched, and what was promised of it.
pub struct Demo {
    /// The server side.
    pub world: World,
    /// The devices, by name.
    pub devices: Vec<Device>,
    begun: Stopwatch,
    seen: BTreeMap<String, String>,
    /// What a device's product was last seen to run.
    running: BTreeMap<String, String>,
    /// When a device's product was first seen on another version than this.
    left: BTreeMap<(String, String), Moment>,
    broken: Vec<String>,
}

impl Demo {
    /// Begins to watch.
    pub fn new(world: World) -> Self {
        Self {
            world,
            devices: Vec::new(),
            begun: Stopwatch::start(),
            seen: BTreeMap::new(),
            running: BTreeMap::new(),
            left: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        println!("\n── {title}");
    }

    /// A line of the story.
    pub fn say(&self, text: &str) {
        println!("{:7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// A promise that must hold now.
    pub fn promise(&mut self, text: &str, holds: bool) {
        self.say(&format!("{} {text}", if holds { "✓" } else { "✗" }));
        if !holds {
            self.broken.push(text.to_owned());
        }
    }

    /// A promise that must come true in time; everything that happens meanwhile is told.
    pub fn expect(
        &mut self,
        text: &str,
        within: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> bool {
        let begun = Stopwatch::start();
        loop {
            self.watch();
            if holds(self) {
                self.promise(text, true);
                return true;
            }
            if begun.elapsed() > within {
                self.promise(&format!("{text} (not within {} s)", within.as_secs()), false);
                return false;
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Something that must work.
    pub fn done<T>(&mut self, text: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                self.say(text);
                Some(value)
            }
            Err(error) => {
                self.promise(&format!("{text}: {error}"), false);
                None
            }
        }
    }

    /// Something that must be refused, with this in its message.
    pub fn refused<T>(&mut self, text: &str, result: Result<T, Error>, because: &str) {
        match result {
            Ok(_) => self.promise(&format!("{text}: it was accepted"), false),
            Err(error) => {
                let said = error.to_string();
                let line = said.lines().find(|line| line.contains(because)).map(str::trim);
                self.promise(&format!("{text}: {}", line.unwrap_or(&said)), line.is_some());
            }
        }
    }

    /// A device by name.
    pub fn device(&self, name: &str) -> &Device {
        self.devices
            .iter()
            .find(|device| device.plan.name == name)
            .expect("the story names only devices that it made")
    }

    /// Whether exactly these devices run this version of a product, by their own disks, and all
    /// others do not.
    pub fn only(&self, product: &str, version: &str, names: &[&str]) -> bool {
        self.devices.iter().all(|device| {
            let runs = device.version_on_disk(product).as_deref() == Some(version);
            runs == names.contains(&device.plan.name.as_str())
        })
    }

    /// Whether this version of a product runs on nobody but these.
    pub fn at_most(&self, product: &str, version: &str, names: &[&str]) -> bool {
        self.devices.iter().all(|device| {
            names.contains(&device.plan.name.as_str())
                || device.version_on_disk(product).as_deref() != Some(version)
        })
    }

    /// Whether every device but these runs this version of a product.
    pub fn all_but(&self, product: &str, version: &str, names: &[&str]) -> bool {
        self.devices.iter().all(|device| {
            let runs = device.version_on_disk(product).as_deref() == Some(version);
            runs != names.contains(&device.plan.name.as_str())
        })
    }

    /// Whether a rollout is in this state, by the gatekeeper.
    pub fn rollout_is(&self, product: &str, version: &str, state: RolloutState) -> bool {
        self.world.rollout(product, version).is_some_and(|rollout| rollout.state == state)
    }

    /// When a device's product was first seen to run another version than this one, which it ran.
    pub fn left(&self, device: &str, product: &str, version: &str) -> Option<Moment> {
        self.left.get(&(format!("{device} {product}"), version.to_owned())).copied()
    }

    /// What was promised and did not come true.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Tells what has changed since the last look.
    fn watch(&mut self) {
        let mut lines = Vec::new();
        for device in &self.devices {
            let Some(status) = device.status() else { continue };
            for product in &status.products {
                let running =
                    product.running.as_ref().map_or("nothing".into(), ToString::to_string);
                let text = format!("runs {running}: {}", product.state_text);
                let key = format!("{} {}", device.plan.name, product.product);
                let before = self.running.insert(key.clone(), running.clone());
                if let Some(before) = before.filter(|before| *before != running) {
                    self.left.entry((key.clone(), before)).or_insert_with(clock::now);
                }
                lines.push((key, text));
            }
        }
        if let Ok(status) = self.world.status() {
            for rollout in &status.rollouts {
                for stage in &rollout.stages {
                    if stage.opened.is_none() && stage.decision == Decision::Wait {
                        continue;
                    }
                    let key =
                        format!("gate {} {} {}", rollout.product, rollout.version, stage.cohort);
                    let text = format!(
                        "{:?}: {} of {} let in, {} confirmed, {} rolled back",
                        stage.decision,
                        stage.authorised,
                        stage.devices,
                        stage.confirmed,
                        stage.rolled_back
                    );
                    lines.push((key, text.to_lowercase()));
                }
            }
        }
        for (key, text) in lines {
            if self.seen.get(&key) != Some(&text) {
                self.say(&format!("  {key}: {text}"));
                self.seen.insert(key, text);
            }
        }
    }
}
