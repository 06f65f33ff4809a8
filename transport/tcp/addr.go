package tcp

import "net"

// reachable returns addr, with a host that others on the network reach in place of "all interfaces".
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	onlyIPv4 := tcp.IP.To4() != nil
	host := outwardHost(onlyIPv4)
	return (&net.TCPAddr{IP: host, Port: tcp.Port}).String()
}

// outwardHost is the first IPv4 address of an interface that is not loopback, else such an IPv6 address, else
// loopback.
func outwardHost(onlyIPv4 bool) net.IP {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return net.IPv4(127, 0, 0, 1)
	}
	var ipv6 net.IP
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP
		}
		if ipv6 == nil {
			ipv6 = n.IP
		}
	}
	if ipv6 != nil && !onlyIPv4 {
		return ipv6
	}
	return net.IPv4(127, 0, 0, 1)
}
