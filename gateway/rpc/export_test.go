package rpc

// WithDefaults is for tests that compare the defaults with those of the gateway's settings.
func (o Options) WithDefaults() Options { return o.withDefaults() }
