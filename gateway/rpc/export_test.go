package rpc

// WithDefaults is for tests that compare the defaults with those of the gateway's settings.
func (o Options) WithDefaults() Options { return o.withDefaults() }

// Found is how many paths are remembered with what they mean.
func (h *Handler) Found() int { return len(h.found.Load().byPath) }
