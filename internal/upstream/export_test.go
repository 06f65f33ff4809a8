package upstream

// MaxIdle is the limit.
const MaxIdle = maxIdle

// Hosts is how many hosts are remembered.
func (t *Transport) Hosts() int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return len(t.pool.hosts)
}

// Idle is how many connections to addr are kept that nothing uses.
func (t *Transport) Idle(addr string) int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	if h := t.pool.hosts[addr]; h != nil {
		return len(h.idle)
	}
	return 0
}
