package lab

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Side is one end of a connection.
type Side int

// The two ends. The order is the order of lines that share an instant.
const (
	Client Side = iota
	Server
)

func (s Side) String() string { return [...]string{"client", "server"}[s] }

// A Frame is one HTTP/2 frame on the wire, or a note that the test made.
type Frame struct {
	At     time.Duration // since Mark, when it was sent
	From   Side
	Conn   int    // 0 for the link's first connection
	Stream uint32 // 0 for frames of the connection
	Type   string // "HEADERS", "DATA", "RST_STREAM", …; "" for a note
	Length int    // payload bytes
	// EndStream tells that the sender says nothing more on this stream.
	EndStream bool
	// Fields are a HEADERS frame's fields, pseudo-headers included.
	Fields []hpack.HeaderField
	// Text is what the ladder shows: the interesting fields, the message that
	// ends in this DATA frame, the error code, or the note.
	Text string
}

// Field returns the value of a HEADERS frame's field, "" if it has none.
func (f Frame) Field(name string) string {
	for _, h := range f.Fields {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// recorder decodes what passes a link's connections.
type recorder struct {
	settled chan struct{} // closed when both ends have acknowledged settings
	begin   sync.Once     // the first Mark

	mu     sync.Mutex
	start  time.Time
	frames []Frame
	conns  int // connections so far
	acks   [2]bool
}

// Mark forgets what was recorded and sets the ladder's clock to zero. Like
// Frames it lets the other goroutines go first.
func (k *Link) Mark() {
	k.rest()
	k.wire.mark()
}

func (r *recorder) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start = time.Now()
	r.frames = nil
}

// Frames returns what was sent since Mark in order of time; what was sent at
// one instant is ordered by side, and notes come first. What the test's other
// goroutines have yet to do at this instant of virtual time they do first: a
// cancel returns before gRPC's writer has sent the RST_STREAM.
func (k *Link) Frames() []Frame {
	k.rest()
	k.wire.mu.Lock()
	defer k.wire.mu.Unlock()
	frames := slices.Clone(k.wire.frames)
	slices.SortStableFunc(frames, func(a, b Frame) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.From, b.From), cmp.Compare(a.order(), b.order()))
	})
	return frames
}

// rest is Settle, where time stands still meanwhile.
func (k *Link) rest() {
	if k.lab.virtual {
		k.lab.Settle()
	}
}

// order puts notes before the frames of their side and instant, as cause
// before effect: whether the program or gRPC's writer runs first is up to the
// scheduler.
func (f Frame) order() int {
	if f.Type == "" {
		return 0
	}
	return 1
}

// Note adds a line to the ladder: what the program on that side saw.
func (k *Link) Note(side Side, format string, args ...any) {
	k.wire.add(Frame{From: side, Text: fmt.Sprintf(format, args...)})
}

func (r *recorder) add(f Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.At = time.Since(r.start)
	r.frames = append(r.frames, f)
	if f.Type == "SETTINGS" && strings.HasPrefix(f.Text, "ACK") && !r.acks[f.From] {
		r.acks[f.From] = true
		if r.acks[Client] && r.acks[Server] {
			close(r.settled)
		}
	}
}

// A connection decodes both directions of one connection.
type connection struct {
	wire *recorder
	id   int

	mu    sync.Mutex
	sides [2]decoder
	paths map[uint32]string // of the streams: says how to read their DATA
}

// decoder reads one direction as its bytes pass.
type decoder struct {
	preface int // bytes of the client's preface still to come
	buf     bytes.Buffer
	framer  *http2.Framer
	partial map[uint32][]byte // gRPC message bytes so far, by stream
}

func (r *recorder) connection() *connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &connection{wire: r, id: r.conns, paths: map[uint32]string{}}
	r.conns++
	for side := range c.sides {
		d := &c.sides[side]
		d.framer = http2.NewFramer(nil, &d.buf)
		d.framer.SetMaxReadFrameSize(1<<24 - 1)
		d.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		d.partial = map[uint32][]byte{}
	}
	c.sides[Client].preface = len(http2.ClientPreface)
	return c
}

// tapped passes a connection's bytes on and lets the decoders see them: what
// is written here, and, where the lab does not hold the other end, what is
// read here.
type tapped struct {
	net.Conn
	on   *connection
	side Side
	tcp  *Lab // nil where the lab holds the other end
}

func (t *tapped) Write(b []byte) (int, error) {
	t.on.mu.Lock() // until it is recorded, or the answer could be recorded first
	defer t.on.mu.Unlock()
	n, err := t.Conn.Write(b)
	t.on.sent(t.side, b[:n])
	return n, err
}

func (t *tapped) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if t.tcp != nil {
		t.tcp.arrivals.Add(1)
		t.on.mu.Lock()
		defer t.on.mu.Unlock()
		t.on.sent(1-t.side, b[:n])
	}
	return n, err
}

// sent decodes the frames that b completes. The caller holds c.mu.
func (c *connection) sent(from Side, b []byte) {
	d := &c.sides[from]
	skip := min(d.preface, len(b))
	d.preface -= skip
	d.buf.Write(b[skip:])
	for complete(d.buf.Bytes()) {
		f, err := d.framer.ReadFrame()
		if err != nil {
			c.wire.add(Frame{From: from, Conn: c.id, Type: "?", Text: err.Error()})
			return
		}
		c.wire.add(c.describe(from, f))
	}
}

// complete reports whether b holds a whole frame, and after a HEADERS frame
// also what continues it (RFC 9113, sections 4.1 and 6.10).
func complete(b []byte) bool {
	for len(b) >= 9 {
		n := 9 + (int(b[0])<<16 | int(b[1])<<8 | int(b[2]))
		if len(b) < n {
			return false
		}
		kind, flags := http2.FrameType(b[3]), http2.Flags(b[4])
		headers := kind == http2.FrameHeaders || kind == http2.FrameContinuation
		if !headers || flags.Has(http2.FlagHeadersEndHeaders) {
			return true
		}
		b = b[n:]
	}
	return false
}

func (c *connection) describe(from Side, f http2.Frame) Frame {
	h := f.Header()
	out := Frame{From: from, Conn: c.id, Stream: h.StreamID, Type: h.Type.String(), Length: int(h.Length)}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		out.Fields = f.Fields
		out.EndStream = f.StreamEnded()
		if path := out.Field(":path"); path != "" {
			c.paths[h.StreamID] = path
		}
		out.Text = headerText(f.Fields)
	case *http2.DataFrame:
		out.EndStream = f.StreamEnded()
		out.Text = c.messages(from, f)
	case *http2.RSTStreamFrame:
		out.Text = f.ErrCode.String()
	case *http2.WindowUpdateFrame:
		out.Text = fmt.Sprintf("+%d", f.Increment)
	case *http2.GoAwayFrame:
		out.Text = strings.TrimSpace(fmt.Sprintf("%v %s", f.ErrCode, f.DebugData()))
		if from == Server { // who opens none has none to name
			out.Text += fmt.Sprintf(" (last stream %d)", f.LastStreamID)
		}
	case *http2.PingFrame:
		out.Text = ack(f.IsAck())
	case *http2.SettingsFrame:
		settings := []string{ack(f.IsAck())}
		f.ForeachSetting(func(s http2.Setting) error {
			settings = append(settings, fmt.Sprintf("%v=%d", s.ID, s.Val))
			return nil
		})
		out.Text = strings.TrimSpace(strings.Join(settings, " "))
	}
	return out
}

func ack(yes bool) string {
	if yes {
		return "ACK"
	}
	return ""
}

// headerText leaves out what every gRPC request and response carries.
func headerText(fields []hpack.HeaderField) string {
	var words []string
	for _, h := range fields {
		switch h.Name {
		case ":method", ":scheme", ":authority", "content-type", "user-agent", "te", "grpc-accept-encoding":
		case ":path":
			words = append(words, h.Value)
		default:
			if h.Value != "" {
				words = append(words, h.Name+" "+h.Value)
			}
		}
	}
	return strings.Join(words, "  ")
}

// messages shows the gRPC messages that end in this frame. A message is a
// compression byte, four bytes of length and the payload, and knows nothing of
// frames (grpc's doc/PROTOCOL-HTTP2.md).
func (c *connection) messages(from Side, f *http2.DataFrame) string {
	d := &c.sides[from]
	b := append(d.partial[f.StreamID], f.Data()...)
	var texts []string
	for len(b) >= 5 {
		n := 5 + int(uint32(b[1])<<24|uint32(b[2])<<16|uint32(b[3])<<8|uint32(b[4]))
		if len(b) < n {
			break
		}
		if b[0] == 0 {
			texts = append(texts, c.message(from, f.StreamID, b[5:n]))
		} else {
			texts = append(texts, fmt.Sprintf("compressed message of %d B", n-5))
		}
		b = b[n:]
	}
	if d.partial[f.StreamID] = b; len(b) == 0 {
		delete(d.partial, f.StreamID)
	}
	return strings.Join(texts, " ")
}

// message decodes a payload as the type that the stream's method sends in
// this direction.
func (c *connection) message(from Side, stream uint32, payload []byte) string {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(c.paths[stream], "/"), "/", "."))
	unknown := fmt.Sprintf("message of %d B", len(payload))
	desc, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	method, ok := desc.(protoreflect.MethodDescriptor)
	if err != nil || !ok {
		return unknown
	}
	of := method.Input()
	if from == Server {
		of = method.Output()
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(of.FullName())
	if err != nil {
		return unknown
	}
	m := kind.New()
	if err := proto.Unmarshal(payload, m.Interface()); err != nil {
		return unknown
	}
	return messageText(m)
}

// Text is a message on one line, the same each time: prototext varies its
// white space on purpose.
func Text(m proto.Message) string { return messageText(m.ProtoReflect()) }

func messageText(m protoreflect.Message) string {
	if at, ok := m.Interface().(*timestamppb.Timestamp); ok {
		return at.AsTime().Format("15:04:05.000000")
	}
	var fields []string
	for i := range m.Descriptor().Fields().Len() {
		field := m.Descriptor().Fields().Get(i)
		if !m.Has(field) {
			continue
		}
		value := m.Get(field)
		var text string
		switch kind := field.Kind(); {
		case field.Message() != nil && !field.IsList() && !field.IsMap():
			text = messageText(value.Message())
		case kind == protoreflect.BytesKind:
			text = fmt.Sprintf("(%d B)", len(value.Bytes()))
		case kind == protoreflect.StringKind && len(value.String()) > 40:
			text = fmt.Sprintf("(%d B)", len(value.String()))
		case kind == protoreflect.StringKind:
			text = strconv.Quote(value.String())
		default:
			text = value.String()
		}
		fields = append(fields, string(field.Name())+":"+text)
	}
	return fmt.Sprintf("%s{%s}", m.Descriptor().Name(), strings.Join(fields, " "))
}

// width is how many columns a ladder takes.
const width = 100

// Ladder draws Frames: the client's from the left, the server's from the
// right, each with the time since Mark at which it was sent: in milliseconds,
// from ten minutes on as a duration.
func (k *Link) Ladder() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10s  client%*s\n", "ms", width-18, "server")
	for _, f := range k.Frames() {
		at := fmt.Sprintf("%.3f", float64(f.At)/float64(time.Millisecond))
		if f.At >= 10*time.Minute {
			at = f.At.Round(10 * time.Millisecond).String()
		}
		fmt.Fprintf(&b, "%10s  %s\n", at, f.line(width-12))
	}
	return b.String()
}

// line draws the frame as an arrow, or the note beside its side, in n columns.
func (f Frame) line(n int) string {
	words := []string{f.Type}
	if f.Type == "DATA" {
		words = append(words, fmt.Sprintf("%d B", f.Length))
	}
	words = append(words, f.Text)
	if f.EndStream {
		words = append(words, "END_STREAM")
	}
	text := []rune(strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), "  "))
	if most := n - 4; len(text) > most {
		text = append(text[:most-1], '…')
	}
	pad := n - len(text)
	switch {
	case f.Type == "" && f.From == Client:
		return string(text)
	case f.Type == "":
		return strings.Repeat(" ", pad) + string(text)
	case f.From == Client:
		return string(text) + " " + strings.Repeat("─", pad-2) + "▶"
	default:
		return "◀" + strings.Repeat("─", pad-2) + " " + string(text)
	}
}
