package plugin

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

const mask = "***"

// Secret is a setting that nobody is to see: however it is printed, logged or encoded, it shows as ***. Beside
// --K-OPTION it can be given as the name of a file that holds it, --K-OPTION-file.
type Secret struct {
	value *string // a pointer, so that printing a struct that holds one in an unexported field shows nothing either
}

// NewSecret is for settings made in code.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal gives the value away, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// String implements fmt.Stringer.
func (Secret) String() string { return mask }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText implements encoding.TextMarshaler; encoding/json and YAML use it too.
func (Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

var (
	urlUser     = regexp.MustCompile(`(://)[^\s:/@"]{20,}@`) // so long, it is a token
	urlPassword = regexp.MustCompile(`(://[^\s:/]*:)[^\s"]*@`)
	password    = regexp.MustCompile(`((?:^|[\s"'(,=])[^\s:/@"'(),=]+:)[^\s/"@][^\s"]*@`) // of USER:PASSWORD@HOST
	urlQuery    = regexp.MustCompile(`(?i)([?&;#][^\s"=&;#]*(?:token|key|secret|pass|pwd|sig|auth|cred|code|jwt|session|%)[^\s"=&;#]*=)[^\s"&;#]+`)
)

// maskURLs hides the passwords of URLs, and of what was meant as one, in text, and what the names in a query say to be secret.
// Where two URLs share a line without a space it hides too much.
func maskURLs(text string) string {
	if strings.ContainsAny(text, "?&;#") {
		text = urlQuery.ReplaceAllString(text, "${1}"+mask)
	}
	if !strings.Contains(text, "@") {
		return text
	}
	text = urlUser.ReplaceAllString(text, "${1}"+mask+"@")
	text = urlPassword.ReplaceAllString(text, "${1}"+mask+"@")
	return password.ReplaceAllString(text, "${1}"+mask+"@")
}

// maskSecrets hides every occurrence of secrets in text. One of less than four characters hides nothing: it would
// make the text unreadable.
func maskSecrets(text string, secrets []string) string {
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, mask)
		}
	}
	return maskURLs(text)
}
