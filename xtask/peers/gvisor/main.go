// A peer of `cargo xtask bench vnm`: gVisor's network stack between a TUN device and a plain TCP target.
//
//	peer-gvisor DEVICE MTU TARGET
//
// attaches to a device that exists and has its address, and carries every TCP connection that arrives there to TARGET.
// Says {"ready":true} on stdout once it listens. Built against the packages golang-gvisor-gvisor-dev and golang-go of
// Debian, without modules.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/tun"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic = 1
	// Like ours: with its own defaults it is slower.
	window = 1 << 20
	// How large a copy is at most.
	chunk = 256 * 1024
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: peer-gvisor DEVICE MTU TARGET")
	}
	mtu, err := strconv.ParseUint(os.Args[2], 10, 16)
	if err != nil {
		log.Fatalf("not an MTU: %v", err)
	}
	if err := listen(os.Args[1], uint32(mtu), os.Args[3]); err != nil {
		log.Fatal(err)
	}
	fmt.Println(`{"ready":true}`)
	select {}
}

func listen(device string, mtu uint32, target string) error {
	fd, err := tun.Open(device)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", device, err)
	}
	link, err := fdbased.New(&fdbased.Options{FDs: []int{fd}, MTU: mtu, RXChecksumOffload: true})
	if err != nil {
		return err
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack := tcpip.TCPSACKEnabled(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: window, Max: 4 * window}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: window, Max: 4 * window}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &receive, &send} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("cannot set an option: %s", err)
		}
	}
	if err := s.CreateNIC(nic, link); err != nil {
		return fmt.Errorf("cannot attach to %s: %s", device, err)
	}
	s.SetPromiscuousMode(nic, true)
	s.SetSpoofing(nic, true)
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	forwarder := tcp.NewForwarder(s, window, 4096, func(request *tcp.ForwarderRequest) { go carry(request, target) })
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	return nil
}

func carry(request *tcp.ForwarderRequest, target string) {
	far, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		request.Complete(true)
		return
	}
	defer far.Close()
	var queue waiter.Queue
	endpoint, problem := request.CreateEndpoint(&queue)
	if problem != nil {
		request.Complete(true)
		return
	}
	request.Complete(false)
	endpoint.SocketOptions().SetDelayOption(false)
	near := gonet.NewTCPConn(&queue, endpoint)
	defer near.Close()
	upward := make(chan struct{})
	go func() {
		copyTo(far, near)
		far.(*net.TCPConn).CloseWrite()
		close(upward)
	}()
	copyTo(near, far)
	near.CloseWrite()
	<-upward
}

// A broken stream is the business of its two ends.
func copyTo(to io.Writer, from io.Reader) {
	buffer := make([]byte, chunk)
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buffer)
}

// The runtime's limit of open files is what the caller has raised ours to.
func init() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
