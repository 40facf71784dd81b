//! A collection of one resource type as the API server last told it.

use std::collections::{BTreeMap, BTreeSet};

use margay_api::slim::{Metadata, Namespace, NetworkPolicy, Node, Object, Pod};

use crate::kube::watch::{Change, ObjectKey};

/// Anything with Kubernetes metadata.
pub trait Resource: Clone + PartialEq {
    /// Its metadata.
    fn metadata(&self) -> &Metadata;
    /// Its metadata, to change.
    fn metadata_mut(&mut self) -> &mut Metadata;

    /// Where it is found.
    fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }
}

macro_rules! resource {
    ($($type:ty),*) => {$(
        impl Resource for $type {
            fn metadata(&self) -> &Metadata {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut Metadata {
                &mut self.metadata
            }
        }
    )*};
}
resource!(Pod, Namespace, Node, NetworkPolicy);

impl<S: Clone + PartialEq> Resource for Object<S> {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// Objects by key. Knows which of them a change really altered.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<T> {
    objects: BTreeMap<ObjectKey, T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
        }
    }
}

impl<T: Resource> Table<T> {
    /// Applies a change and names the objects that differ now in something that Margay reads.
    pub fn apply(&mut self, change: Change<T>) -> BTreeSet<ObjectKey> {
        match change {
            Change::Put(object) => self.put(object).into_iter().collect(),
            Change::Gone(key) => self.objects.remove(&key).map(|_| key).into_iter().collect(),
            Change::Reset(objects) => {
                let mut gone: BTreeSet<_> = self.objects.keys().cloned().collect();
                let mut changed = BTreeSet::new();
                for object in objects {
                    gone.remove(&object.key());
                    changed.extend(self.put(object));
                }
                self.objects.retain(|key, _| !gone.contains(key));
                changed.extend(gone);
                changed
            }
        }
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&T> {
        self.objects.get(key)
    }

    /// A cluster-wide object by name.
    pub fn named(&self, name: &str) -> Option<&T> {
        self.objects.get(&ObjectKey {
            namespace: String::new(),
            name: name.to_owned(),
        })
    }

    /// All objects, by key.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.objects.values()
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn put(&mut self, mut object: T) -> Option<ObjectKey> {
        let key = object.key();
        let Some(old) = self.objects.get_mut(&key) else {
            self.objects.insert(key.clone(), object);
            return Some(key);
        };
        // A status heartbeat raises only the version; that is no change to anybody here.
        let version = std::mem::take(&mut object.metadata_mut().resource_version);
        let old_version = std::mem::take(&mut old.metadata_mut().resource_version);
        let same = *old == object;
        old.metadata_mut().resource_version = old_version;
        object.metadata_mut().resource_version = version;
        *old = object;
        (!same).then_some(key)
    }
}

impl<T: Resource> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(objects: I) -> Self {
        Self {
            objects: objects.into_iter().map(|object| (object.key(), object)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, version: &str, label: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = name.into();
        object.metadata.resource_version = version.into();
        object.metadata.labels.insert("team".into(), label.into());
        object
    }

    fn names(keys: &BTreeSet<ObjectKey>) -> Vec<&str> {
        keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_new_version_alone_is_no_change() {
        let mut table = Table::default();
        assert_eq!(names(&table.apply(Change::Put(namespace("a", "1", "x")))), ["a"]);
        assert!(table.apply(Change::Put(namespace("a", "2", "x"))).is_empty());
        assert_eq!(
            table.named("a").unwrap().metadata.resource_version,
            "2",
            "but the version is kept up"
        );
        assert_eq!(names(&table.apply(Change::Put(namespace("a", "3", "y")))), ["a"]);
    }

    #[test]
    fn a_reset_tells_what_went_came_and_changed() {
        let mut table = Table::default();
        table.apply(Change::Reset(vec![
            namespace("a", "1", "x"),
            namespace("b", "1", "x"),
            namespace("c", "1", "x"),
        ]));
        let changed = table.apply(Change::Reset(vec![
            namespace("a", "9", "x"),
            namespace("b", "9", "new"),
            namespace("d", "9", "x"),
        ]));
        assert_eq!(names(&changed), ["b", "c", "d"]);
        assert_eq!(table.len(), 3);
        assert!(
            table
                .apply(Change::Gone(ObjectKey {
                    namespace: String::new(),
                    name: "zz".into()
                }))
                .is_empty()
        );
    }
}
