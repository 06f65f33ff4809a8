package codec

// Raw is a body that is encoded already, or that the one who gets it decodes: every codec takes and gives it as it is. It
// is for those who pass bodies on.
//
//	answer, err := client.Call[codec.Raw](ctx, c, service, endpoint, &body, client.ContentType(codec.JSON))
type Raw []byte

// appendRaw appends v if it is Raw.
func appendRaw(dst []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case Raw:
		return append(dst, v...), true
	case *Raw:
		return append(dst, *v...), true
	}
	return dst, false
}

// decodeRaw fills v with a copy of data if it is *Raw.
func decodeRaw(data []byte, v any) bool {
	p, ok := v.(*Raw)
	if ok {
		*p = append((*p)[:0], data...)
	}
	return ok
}
