package tcp

import (
	"bytes"
	"fmt"
	"unicode"
)

// describe says what the first bytes of a peer look like.
func describe(b []byte) string {
	b = b[:min(len(b), 32)]
	switch {
	case looksLikeTLS(b):
		return "it looks like TLS: set --transport-tls-cert and -key to listen with TLS, --transport-tls-ca to dial"
	case looksLikeHTTP(b):
		return fmt.Sprintf("it looks like HTTP: %q", firstLine(b))
	case printable(b):
		return fmt.Sprintf("it sent %q", firstLine(b))
	default:
		return fmt.Sprintf("it sent % x", b[:min(len(b), 16)])
	}
}

// looksLikeTLS recognises the record header of a handshake or an alert.
func looksLikeTLS(b []byte) bool {
	return len(b) >= 3 && (b[0] == 0x16 || b[0] == 0x15) && b[1] == 3 && b[2] <= 4
}

func looksLikeHTTP(b []byte) bool {
	for _, start := range []string{"GET ", "POST ", "PUT ", "HEAD ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI ", "HTTP/"} {
		if bytes.HasPrefix(b, []byte(start)) {
			return true
		}
	}
	return false
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	return line
}

func printable(b []byte) bool {
	for _, r := range string(b) {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) && r != '\r' && r != '\n' && r != '\t' {
			return false
		}
	}
	return true
}
