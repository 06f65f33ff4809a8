package upstream

// Waiting is how many requests wait for a connection to addr.
func (t *Transport) Waiting(addr string) int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	if h := t.pool.hosts[addr]; h != nil {
		return len(h.waiting)
	}
	return 0
}

// Hosts is how many hosts are remembered.
func (t *Transport) Hosts() int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return len(t.pool.hosts)
}
