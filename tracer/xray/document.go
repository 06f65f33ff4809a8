package xray

import (
	"strconv"
	"time"
)

// document is a segment document, as X-Ray has it.
type document struct {
	Name        string                    `json:"name"`
	ID          string                    `json:"id"`
	TraceID     string                    `json:"trace_id,omitempty"`
	ParentID    string                    `json:"parent_id,omitempty"`
	Type        string                    `json:"type,omitempty"`
	Start       seconds                   `json:"start_time"`
	End         seconds                   `json:"end_time,omitzero"`
	InProgress  bool                      `json:"in_progress,omitempty"` // there is no end yet
	Namespace   string                    `json:"namespace,omitempty"`
	Origin      string                    `json:"origin,omitempty"`
	User        string                    `json:"user,omitempty"`
	Error       bool                      `json:"error,omitempty"`
	Throttle    bool                      `json:"throttle,omitempty"`
	Fault       bool                      `json:"fault,omitempty"`
	Cause       *cause                    `json:"cause,omitempty"`
	HTTP        *httpFields               `json:"http,omitempty"`
	SQL         *sqlFields                `json:"sql,omitempty"`
	AWS         *awsFields                `json:"aws,omitempty"`
	Service     *service                  `json:"service,omitempty"`
	Annotations map[string]any            `json:"annotations,omitempty"`
	Metadata    map[string]map[string]any `json:"metadata,omitempty"`
	Subsegments []*document               `json:"subsegments,omitempty"`
}

type service struct {
	Version        string `json:"version,omitempty"`
	Runtime        string `json:"runtime,omitempty"`
	RuntimeVersion string `json:"runtime_version,omitempty"`
}

type httpFields struct {
	Request  *httpRequest  `json:"request,omitempty"`
	Response *httpResponse `json:"response,omitempty"`
}

type httpRequest struct {
	Method       string `json:"method,omitempty"`
	URL          string `json:"url,omitempty"`
	ClientIP     string `json:"client_ip,omitempty"`
	ForwardedFor bool   `json:"x_forwarded_for,omitempty"`
	UserAgent    string `json:"user_agent,omitempty"`
}

type httpResponse struct {
	Status        int64 `json:"status,omitempty"`
	ContentLength int64 `json:"content_length,omitempty"`
}

type sqlFields struct {
	URL   string `json:"url,omitempty"`
	Type  string `json:"database_type,omitempty"`
	User  string `json:"user,omitempty"`
	Query string `json:"sanitized_query,omitempty"`
}

type awsFields struct {
	AccountID string        `json:"account_id,omitempty"`
	Operation string        `json:"operation,omitempty"`
	Region    string        `json:"region,omitempty"`
	RequestID string        `json:"request_id,omitempty"`
	QueueURL  string        `json:"queue_url,omitempty"`
	Table     string        `json:"table_name,omitempty"`
	ECS       *awsContainer `json:"ecs,omitempty"`
	EC2       *awsInstance  `json:"ec2,omitempty"`
	XRay      *awsSDK       `json:"xray,omitempty"`
}

type awsContainer struct {
	Container string `json:"container,omitempty"`
}

type awsInstance struct {
	ID   string `json:"instance_id,omitempty"`
	Zone string `json:"availability_zone,omitempty"`
}

type awsSDK struct {
	SDK     string `json:"sdk,omitempty"`
	Version string `json:"sdk_version,omitempty"`
	Rule    string `json:"sampling_rule_name,omitempty"`
}

// seconds is a time as X-Ray wants it: in seconds since 1970, to the microsecond.
type seconds time.Time

// MarshalJSON does without floats: near 2^31 they have microseconds, but not these ones.
func (s seconds) MarshalJSON() ([]byte, error) {
	t := time.Time(s)
	b := strconv.AppendInt(make([]byte, 0, 24), t.Unix(), 10)
	b = append(b, '.')
	digits := strconv.Itoa(1e6 + t.Nanosecond()/1000)
	return append(b, digits[1:]...), nil
}
