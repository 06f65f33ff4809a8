// Package api is what the greeter and those that call it share: its messages, in plain Go.
package api

// HelloRequest asks for a greeting.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is the greeting.
type HelloResponse struct {
	Message string `json:"message"`
}

// Greetings is the topic of Greeting events.
const Greetings = "greetings"

// Greeting is the event that somebody is to be greeted.
type Greeting struct {
	Name string `json:"name"`
}
