package registry

import (
	"cmp"
	"slices"
)

// key is what a change is about.
type key struct{ name, version, id string }

// nodesOf returns one Service for each node of list, with that node alone; they share their parts with list.
func nodesOf(list []*Service) []*Service {
	var single []*Service
	for _, s := range list {
		for _, n := range s.Nodes {
			one := *s
			one.Nodes = []*Node{n}
			single = append(single, &one)
		}
	}
	return single
}

func keyOf(single *Service) key { return key{single.Name, single.Version, single.Nodes[0].ID} }

// Diff returns what changed between two snapshots of a service, or of all: for each node one Result, those deleted
// first, each group in the order of its snapshot. Everything is compared, the metadata and endpoints of the service too. A
// node that moved to another version is deleted from the one and created in the other. The results share their parts with
// the snapshots.
func Diff(old, new []*Service) []*Result {
	before, after := byKey(old), byKey(new)
	var results []*Result
	for _, s := range nodesOf(old) {
		if after[keyOf(s)] == nil {
			results = append(results, &Result{Action: Delete, Service: s})
		}
	}
	for _, s := range nodesOf(new) {
		was := before[keyOf(s)]
		switch {
		case was == nil:
			results = append(results, &Result{Action: Create, Service: s})
		case !was.Equal(s):
			results = append(results, &Result{Action: Update, Service: s})
		}
	}
	return results
}

func byKey(list []*Service) map[key]*Service {
	m := make(map[key]*Service)
	for _, s := range nodesOf(list) {
		m[keyOf(s)] = s
	}
	return m
}

// Merge makes of services that were registered one by one what GetService returns: one Service for each name and version,
// sorted, nodes sorted by ID, metadata and endpoints as its first node brought them. The result is a copy.
func Merge(list []*Service) []*Service {
	single := nodesOf(list)
	slices.SortStableFunc(single, func(a, b *Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Nodes[0].ID, b.Nodes[0].ID))
	})
	var merged []*Service
	for _, s := range single {
		last := len(merged) - 1
		if last >= 0 && merged[last].Name == s.Name && merged[last].Version == s.Version {
			merged[last].Nodes = append(merged[last].Nodes, s.Nodes[0].clone())
			continue
		}
		merged = append(merged, s.Clone())
	}
	return merged
}
