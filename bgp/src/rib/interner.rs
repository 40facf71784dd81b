//! Attribute sets, each kept once.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::wire::PathAttributes;

/// Below this many sets a sweep is not worth it.
const FIRST_SWEEP: usize = 1024;

#[derive(Debug)]
pub(super) struct Interner {
    sets: FxHashSet<Arc<PathAttributes>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Interner {
            sets: FxHashSet::default(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl Interner {
    pub(super) fn intern(&mut self, attributes: PathAttributes) -> Arc<PathAttributes> {
        if let Some(known) = self.sets.get(&attributes) {
            return known.clone();
        }
        let shared = Arc::new(attributes);
        self.sets.insert(shared.clone());
        shared
    }

    /// Whether the sets have doubled since the last sweep.
    pub(super) fn wants_sweep(&self) -> bool {
        self.sets.len() >= self.sweep_at
    }

    /// Drops the sets nobody uses any more.
    pub(super) fn sweep(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.sweep_at = FIRST_SWEEP.max(2 * self.sets.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_shared_and_unused_ones_swept() {
        let mut interner = Interner::default();
        let med = |med| PathAttributes {
            med: Some(med),
            ..PathAttributes::default()
        };
        let kept = interner.intern(med(1));
        assert!(Arc::ptr_eq(&kept, &interner.intern(med(1))));
        for i in 2..2000 {
            interner.intern(med(i));
        }
        assert!(interner.wants_sweep());
        interner.sweep();
        assert_eq!(interner.sets.len(), 1);
        assert!(Arc::ptr_eq(&kept, &interner.intern(med(1))));
    }
}
