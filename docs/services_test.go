package docs_test

// This is the code that services.md shows in parts, and what it says of it.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/plugmicro/micro"
	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/client"
	"github.com/plugmicro/micro/codec"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/metadata"
	"github.com/plugmicro/micro/plugin"
	"github.com/plugmicro/micro/server"
	"github.com/plugmicro/micro/status"
)

// ShopSettings are --shop-currency, MICRO_SHOP_CURRENCY, and shop: {currency: EUR} in the file.
type ShopSettings struct {
	Currency string        `default:"EUR" help:"what is paid with, three letters"`
	Token    plugin.Secret `help:"token of the bank"`
}

// Validate checks what types cannot.
func (s *ShopSettings) Validate() error {
	if len(s.Currency) != 3 {
		return fmt.Errorf("currency %q: want three letters, as in EUR", s.Currency)
	}
	return nil
}

// Shop has the endpoints.
type Shop struct {
	svc      *micro.Service
	settings ShopSettings
	store    *store
}

// newShop makes the service: main runs it, and tests start it with options of their own.
func newShop(opts ...micro.Option) *micro.Service {
	shop := &Shop{store: new(store)}
	shop.svc = micro.New("shop", append(opts,
		micro.WithVersion("1.0.0"),
		micro.WithSection("shop", &shop.settings),
		micro.BeforeStart(shop.open),
		micro.AfterStop(shop.close),
		micro.WithServerMiddleware(logErrors),
	)...)
	shop.svc.Handle(shop, server.Idempotent("Shop.Find")) // asked twice it does no harm
	shop.svc.Subscribe("payments", shop.onPayment, broker.Group("shop"), broker.DeadLetter("payments.dead"))
	return shop.svc
}

// open has no capital, so it is no endpoint.
func (s *Shop) open(context.Context) error  { return s.store.open(s.settings.Token.Reveal()) }
func (s *Shop) close(context.Context) error { return s.store.close() }

type Order struct {
	ID     int    `json:"id"`
	Item   string `json:"item"`
	Tenant string `json:"tenant,omitempty"`
	Price  string `json:"price"`
	Paid   bool   `json:"paid,omitempty"`
}

type OrderID struct {
	ID int `json:"id"`
}

// Find returns an order.
func (s *Shop) Find(ctx context.Context, req *OrderID) (*Order, error) {
	order, err := s.store.find(req.ID)
	switch {
	case errors.Is(err, errNoOrder):
		return nil, status.Errorf(status.NotFound, "there is no order %d", req.ID)
	case err != nil:
		slog.ErrorContext(ctx, "find an order", "id", req.ID, "error", err)
		return nil, status.Errorf(status.Internal, "orders cannot be read just now")
	}
	return order, nil
}

// logErrors is around all endpoints, and logs what handlers answer with a code, too.
func logErrors(next server.HandlerFunc) server.HandlerFunc {
	return func(ctx context.Context, r *server.Request) (any, error) {
		rsp, err := next(ctx, r)
		if err != nil {
			slog.WarnContext(ctx, "call failed", "endpoint", r.Endpoint, "peer", r.Peer, "error", err)
		}
		return rsp, err
	}
}

type PlaceRequest struct {
	Item string `json:"item"`
}

// Place takes an order, for the tenant that the metadata names, and tells those who want to know.
func (s *Shop) Place(ctx context.Context, req *PlaceRequest) (*Order, error) {
	tenant := metadata.Get(ctx, "tenant")
	if tenant == "" {
		return nil, status.Errorf(status.Unauthenticated, "who are you?")
	}
	price, err := s.price(ctx, tenant, req.Item)
	if err != nil {
		return nil, err
	}
	order, err := s.store.add(Order{Item: req.Item, Tenant: tenant, Price: price})
	if err != nil {
		return nil, status.Errorf(status.Internal, "the order cannot be kept just now")
	}
	if err := s.svc.Publish(ctx, "orders", order, micro.Key(tenant)); err != nil {
		slog.ErrorContext(ctx, "publish an order", "id", order.ID, "error", err)
	}
	return order, nil
}

type Item struct {
	Name string `json:"name"`
}

type Price struct {
	Amount int `json:"amount"`
}

// price asks another service.
func (s *Shop) price(ctx context.Context, tenant, item string) (string, error) {
	ctx = metadata.With(ctx, "tenant", tenant)             // what came in is not passed on by itself
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // or less, if that is all the caller has left
	defer cancel()
	price, err := client.Call[Price](ctx, s.svc.Client(), "prices", "Prices.Of", &Item{Name: item})
	switch status.CodeOf(err) {
	case status.OK:
		return fmt.Sprint(price.Amount, " ", s.settings.Currency), nil
	case status.NotFound:
		return "", status.Errorf(status.InvalidArgument, "there is no %q to be had", item)
	default:
		slog.ErrorContext(ctx, "ask for a price", "item", item, "error", err)
		return "", status.Errorf(status.Unavailable, "prices are not known just now")
	}
}

type Payment struct {
	Order int `json:"order"`
}

// onPayment handles one event: nil acks it, an error has it tried again.
func (s *Shop) onPayment(ctx context.Context, paid *Payment) error {
	err := s.store.pay(paid.Order)
	if errors.Is(err, errNoOrder) {
		return broker.Permanent(err) // which will not change: to the dead letters at once
	}
	return err
}

// store stands for a database.
type store struct {
	mu     sync.Mutex
	orders []*Order
	opened bool
}

var errNoOrder = errors.New("no such order")

func (s *store) open(string) error { s.opened = true; return nil }
func (s *store) close() error      { s.opened = false; return nil }

func (s *store) add(o Order) (*Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.ID = len(s.orders) + 1
	s.orders = append(s.orders, &o)
	return &o, nil
}

func (s *store) find(id int) (*Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id < 1 || id > len(s.orders) {
		return nil, errNoOrder
	}
	order := *s.orders[id-1]
	return &order, nil
}

func (s *store) pay(id int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id < 1 || id > len(s.orders) {
		return errNoOrder
	}
	s.orders[id-1].Paid = true
	return nil
}

// inMemory are the options of a service in a test: all that it needs is in the process, and neither the flags nor the
// environment of the test count.
func inMemory() []micro.Option {
	return []micro.Option{
		micro.WithArgs(), micro.WithEnviron(),
		micro.WithSetting("registry", "memory"), micro.WithSetting("broker", "memory"), micro.WithSetting("transport", "memory"),
	}
}

// start runs a service until the end of the test.
func start(t *testing.T, svc *micro.Service) {
	require.NoError(t, svc.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, svc.Stop(context.Background())) })
}

// Prices is the other service, as far as the test needs it.
type Prices struct{}

func (Prices) Of(ctx context.Context, item *Item) (*Price, error) {
	if item.Name != "tea" || metadata.Get(ctx, "tenant") != "acme" {
		return nil, status.Errorf(status.NotFound, "no price for it")
	}
	return &Price{Amount: 3}, nil
}

func TestPlace(t *testing.T) {
	prices := micro.New("prices", inMemory()...)
	prices.Handle(Prices{})
	start(t, prices)
	shop := newShop(inMemory()...)
	start(t, shop)

	ctx := metadata.With(t.Context(), "tenant", "acme")
	order, err := client.Call[Order](ctx, shop.Client(), "shop", "Shop.Place", &PlaceRequest{Item: "tea"})
	require.NoError(t, err)
	require.Equal(t, &Order{ID: 1, Item: "tea", Tenant: "acme", Price: "3 EUR"}, order)

	_, err = client.Call[Order](ctx, shop.Client(), "shop", "Shop.Place", &PlaceRequest{Item: "gold"})
	require.Equal(t, status.InvalidArgument, status.CodeOf(err))
}

func TestFind(t *testing.T) {
	shop := &Shop{store: new(store)}
	ctx := context.WithValue(t.Context(), metadata.Incoming{}, map[string]string{"tenant": "acme"}) // as if a caller had sent it
	_, err := shop.Find(ctx, &OrderID{ID: 7})
	require.Equal(t, status.NotFound, status.CodeOf(err))
}

// From here on it is what services.md says in words.

func leavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func TestServicesPage(t *testing.T) {
	leavesNothing(t)
	shop := newShop(append(inMemory(), micro.WithEnviron("MICRO_SHOP_CURRENCY=CHF"))...)
	start(t, shop)
	prices := micro.New("prices", append(inMemory(), micro.WithVersion("2"), micro.WithMetadata("zone", "a"))...)
	prices.Handle(Prices{})
	start(t, prices)
	c := shop.Client()
	ctx := metadata.With(t.Context(), "Tenant", "acme")

	order, err := client.Call[Order](ctx, c, "shop", "Shop.Place", &PlaceRequest{Item: "tea"}, client.Timeout(time.Minute),
		client.Where(client.Version("1.0.0")), client.HashKey("acme"))
	require.NoError(t, err)
	require.Equal(t, "3 CHF", order.Price)
	_, err = client.Call[Price](ctx, c, "prices", "Prices.Of", &Item{"tea"}, client.Where(client.Metadata("zone", "b")))
	require.Equal(t, status.Unavailable, status.CodeOf(err))

	var body codec.Raw = []byte(`{"name":"tea","unknown":1}`)
	var answer codec.Raw
	require.NoError(t, client.CallInto(ctx, c, "prices", "Prices.Of", &body, &answer, client.ContentType(codec.JSON)))
	require.Equal(t, `{"amount":3}`, string(answer))

	dead := make(chan *broker.Message, 1)
	listener := micro.New("listener", inMemory()...)
	listener.Subscribe("payments.dead", func(_ context.Context, m *broker.Message) error { dead <- m; return nil })
	start(t, listener)
	require.NoError(t, shop.Publish(t.Context(), "payments", &Payment{Order: 99}))
	require.Equal(t, "1", (<-dead).Header[broker.HeaderAttempts])
	require.NoError(t, shop.Publish(t.Context(), "payments", &Payment{Order: 1}))
	require.Eventually(t, func() bool {
		order, err := client.Call[Order](ctx, c, "shop", "Shop.Find", &OrderID{ID: 1})
		return err == nil && order.Paid
	}, time.Minute, time.Millisecond)

	err = newShop(append(inMemory(), micro.WithEnviron("MICRO_SHOP_CURRENCY=euro"))...).Start(t.Context())
	require.ErrorContains(t, err, `currency "euro": want three letters`)
}

func TestSettingsComeBeforeHooks(t *testing.T) {
	leavesNothing(t)
	var settings ShopSettings
	var seen []string
	see := func(context.Context) error {
		seen = append(seen, settings.Currency+settings.Token.Reveal())
		return nil
	}
	svc := micro.New("shop", append(inMemory(), micro.WithEnviron("MICRO_SHOP_TOKEN=x"), micro.WithSection("shop", &settings),
		micro.BeforeStart(see), micro.AfterStart(see), micro.BeforeStop(see), micro.AfterStop(see))...)
	require.NoError(t, svc.Start(t.Context()))
	require.NoError(t, svc.Stop(t.Context()))
	require.Equal(t, []string{"EURx", "EURx", "EURx", "EURx"}, seen)
}

// Ticker has a stream without an end, which BeforeStop ends.
type Ticker struct{ ended chan struct{} }

func (k Ticker) Watch(ctx context.Context, _ *struct{}, out *server.Sender[struct{}]) error {
	if err := out.Send(&struct{}{}); err != nil {
		return err
	}
	select {
	case <-k.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestStreamIsToldOfTheStop(t *testing.T) {
	leavesNothing(t)
	for _, told := range []bool{true, false} {
		ticker := Ticker{make(chan struct{})}
		end := func(context.Context) error {
			if told {
				close(ticker.ended)
			}
			return nil
		}
		limit := "30s"
		if !told {
			limit = "600ms"
		}
		svc := micro.New("ticker", append(inMemory(), micro.BeforeStop(end), micro.WithSetting("drain-timeout", limit))...)
		svc.Handle(ticker)
		require.NoError(t, svc.Start(t.Context()))
		watcher := micro.New("watcher", inMemory()...)
		start(t, watcher)
		stream, err := client.Open[struct{}, struct{}](t.Context(), watcher.Client(), "ticker", "Ticker.Watch")
		require.NoError(t, err)
		require.NoError(t, stream.Send(&struct{}{}))
		_, err = stream.Recv()
		require.NoError(t, err)
		err = svc.Stop(t.Context())
		_, last := stream.Recv()
		if told {
			require.NoError(t, err)
			require.Equal(t, io.EOF, last)
		} else {
			require.ErrorContains(t, err, "calls were still running, and were cut off")
			require.Equal(t, status.Unavailable, status.CodeOf(last))
		}
	}
}

// Odd answers in ways that services.md has in its tables.
type Odd struct{ begun chan struct{} }

func (Odd) Plain(context.Context, *struct{}) (*struct{}, error) {
	return nil, errors.New("dial 10.0.0.7: refused")
}

func (Odd) Wrapped(context.Context, *struct{}) (*struct{}, error) {
	return nil, fmt.Errorf("look: %w", status.Errorf(status.NotFound, "none"))
}
func (Odd) Panic(context.Context, *struct{}) (*struct{}, error)   { panic("secret") }
func (Odd) Nothing(context.Context, *struct{}) (*struct{}, error) { return nil, nil }

func (o Odd) Wait(ctx context.Context, _ *struct{}) (*struct{}, error) {
	o.begun <- struct{}{}
	<-ctx.Done()
	o.begun <- struct{}{}
	return nil, ctx.Err()
}

func (Odd) Metadata(ctx context.Context, _ *struct{}) (*map[string]string, error) {
	all := metadata.All(ctx)
	for k, v := range metadata.Outgoing(ctx) {
		all["outgoing "+k] = v
	}
	return &all, nil
}

func (Odd) Left(ctx context.Context, _ *struct{}) (*time.Duration, error) {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	return &left, nil
}
func (Odd) Bytes(_ context.Context, b *[]byte) (*[]byte, error) { return b, nil }
func (Odd) Length(_ context.Context, b *[]byte) (*struct{ N int }, error) {
	return &struct{ N int }{len(*b)}, nil
}
func (Odd) Proto(_ context.Context, s *wrapperspb.StringValue) (*struct{}, error) {
	return &struct{}{}, nil
}
func (Odd) Many(_ context.Context, _ *struct{}, out *server.Sender[struct{}]) error { return nil }

func (Odd) Endless(ctx context.Context, _ *struct{}, out *server.Sender[struct{}]) error {
	_, bounded := ctx.Deadline()
	if bounded {
		return errors.New("a stream has no deadline unless its context has")
	}
	for out.Send(&struct{}{}) == nil {
	}
	return ctx.Err()
}

func TestServicesPageInWords(t *testing.T) {
	leavesNothing(t)
	log := new(logtest.Buffer)
	odd := Odd{make(chan struct{}, 2)}
	svc := micro.New("odd", append(inMemory(), micro.WithLogger(slog.New(slog.NewTextHandler(log, nil))))...)
	_, err := client.Call[struct{}](t.Context(), svc.Client(), "odd", "Odd.Plain", &struct{}{})
	require.Equal(t, status.Unavailable, status.CodeOf(err), "before the start")
	svc.Handle(odd)
	start(t, svc)
	call := func(ctx context.Context, endpoint string, opts ...client.CallOption) error {
		_, err := client.Call[struct{}](ctx, svc.Client(), "odd", endpoint, &struct{}{}, opts...)
		return err
	}
	require.EqualError(t, call(t.Context(), "Odd.Plain"), "Unknown: dial 10.0.0.7: refused")
	require.Contains(t, log.String(), "refused", "what has no code is logged")
	require.EqualError(t, call(t.Context(), "Odd.Wrapped"), "NotFound: look: NotFound: none")
	require.NotContains(t, log.String(), "look:", "what has one is not")
	require.EqualError(t, call(t.Context(), "Odd.Panic"), "Internal: panic in Odd.Panic: the log of the service says more")
	require.Contains(t, log.String(), "secret")
	require.Equal(t, status.Internal, status.CodeOf(call(t.Context(), "Odd.Nothing")))
	require.False(t, errors.As(call(t.Context(), "Odd.Plain"), new(*client.Failure)))
	require.True(t, errors.As(call(t.Context(), "Odd.No"), new(*client.Failure)))

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = call(short, "Odd.Wait", client.Timeout(time.Hour))
	require.ErrorIs(t, err, context.DeadlineExceeded, "the deadline of the context goes before the option")
	<-odd.begun
	<-odd.begun
	require.ErrorIs(t, call(t.Context(), "Odd.Wait", client.Timeout(20*time.Millisecond)), context.DeadlineExceeded)
	<-odd.begun
	<-odd.begun
	ctx, giveUp := context.WithCancel(t.Context())
	go func() { <-odd.begun; giveUp() }()
	require.ErrorIs(t, call(ctx, "Odd.Wait"), context.Canceled)
	<-odd.begun
	left, err := client.Call[time.Duration](t.Context(), svc.Client(), "odd", "Odd.Left", &struct{}{})
	require.NoError(t, err)
	require.LessOrEqual(t, *left, 10*time.Second)
	require.Greater(t, *left, 5*time.Second)

	ctx = metadata.With(metadata.With(t.Context(), "Tenant", "acme"), "a", "b")
	all, err := client.Call[map[string]string](ctx, svc.Client(), "odd", "Odd.Metadata", &struct{}{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"tenant": "acme", "a": "b"}, *all)
	err = call(metadata.With(t.Context(), "long", strings.Repeat("x", 64<<10)), "Odd.Metadata")
	require.Equal(t, status.InvalidArgument, status.CodeOf(err))

	data, err := client.Call[[]byte](t.Context(), svc.Client(), "odd", "Odd.Bytes", &[]byte{0, 1, 2})
	require.NoError(t, err)
	require.Equal(t, []byte{0, 1, 2}, *data)
	_, err = client.Call[struct{ N int }](t.Context(), svc.Client(), "odd", "Odd.Length", &[]byte{0, 1, 2})
	require.Equal(t, status.Internal, status.CodeOf(err), "an answer has the type of the request")
	length, err := client.Call[struct{ N int }](t.Context(), svc.Client(), "odd", "Odd.Length", &[]byte{0, 1, 2}, client.ContentType(codec.JSON))
	require.NoError(t, err)
	require.Equal(t, 3, length.N)
	_, err = client.Call[struct{}](t.Context(), svc.Client(), "odd", "Odd.Proto", wrapperspb.String("x"))
	require.Equal(t, status.Internal, status.CodeOf(err))
	_, err = client.Call[struct{}](t.Context(), svc.Client(), "odd", "Odd.Proto", wrapperspb.String("x"), client.ContentType(codec.JSON))
	require.NoError(t, err)
	big := make([]byte, 5<<20)
	_, err = client.Call[[]byte](t.Context(), svc.Client(), "odd", "Odd.Bytes", &big)
	require.Equal(t, status.ResourceExhausted, status.CodeOf(err))

	stream, err := client.Open[struct{}, struct{}](t.Context(), svc.Client(), "odd", "Odd.Endless")
	require.NoError(t, err)
	require.NoError(t, stream.Send(&struct{}{}))
	for range 10 {
		_, err = stream.Recv()
		require.NoError(t, err)
	}
	require.NoError(t, stream.Close())
	_, err = stream.Recv()
	require.Error(t, err)
	require.Equal(t, status.Unimplemented, status.CodeOf(call(t.Context(), "Odd.Many")), "a stream is opened, not called")
}
