//! What changes from step to step: the learning rate and the temperature of the regime.

/// Linear warm-up, then a cosine down to a floor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LearningRate {
    pub peak: f64,
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The last rate as a part of the peak.
    pub floor: f64,
}

impl LearningRate {
    /// The rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = self.steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// A linear fall from `start` to `end` over `steps`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Temperature {
    pub start: f64,
    pub end: f64,
    pub steps: u64,
}

impl Temperature {
    /// The temperature of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let progress = (step as f64 / self.steps.max(1) as f64).min(1.0);
        self.start + (self.end - self.start) * progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_its_floor() {
        let lr = LearningRate { peak: 3e-4, warmup_steps: 10, steps: 110, floor: 0.1 };
        assert!((lr.at(0) - 3e-5).abs() < 1e-18);
        assert_eq!(lr.at(9), 3e-4);
        assert_eq!(lr.at(10), 3e-4);
        assert!((lr.at(60) - 3e-4 * 0.55).abs() < 1e-12, "{}", lr.at(60));
        assert!((lr.at(110) - 3e-5).abs() < 1e-12 && (lr.at(10_000) - 3e-5).abs() < 1e-12);
        assert!((10..110).all(|s| lr.at(s + 1) < lr.at(s)));
        let flat = LearningRate { warmup_steps: 0, steps: 0, ..lr };
        assert!(flat.at(0) == 3e-4 && flat.at(5) > 0.0);
    }

    #[test]
    fn the_temperature_falls_linearly_and_stays() {
        let t = Temperature { start: 1.0, end: 0.5, steps: 100 };
        assert_eq!([t.at(0), t.at(50), t.at(100), t.at(900)], [1.0, 0.75, 0.5, 0.5]);
        assert_eq!(Temperature { steps: 0, ..t }.at(1), 0.5);
    }
}
