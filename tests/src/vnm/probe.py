# Tries to reach something, as somebody who knows the ways around would. One line on standard output: what came back.
#   probe.py tcp|udp|ping IP PORT [bind=IP] [device=IF] [pktinfo=IF] [wait=SECONDS]
#   probe.py attach IF
import fcntl, os, socket, struct, sys

kind, target, port = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["0"])[0])
options = dict(word.split("=", 1) for word in sys.argv[4:])

def attach(name):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x5101))  # TUN, no info, vnet header, multi-queue

def reach():
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    if kind == "ping":
        s = socket.socket(family, socket.SOCK_DGRAM, 58 if family == socket.AF_INET6 else 1)
    else:
        s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(float(options.get("wait", 1.5)))
    if "device" in options:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options["device"].encode())
    if "bind" in options:
        s.bind((options["bind"], 0))
    payload = struct.pack("!BBHHH", 128 if family == socket.AF_INET6 else 8, 0, 0, 0, 1) + b"probe" if kind == "ping" else b"hi"
    if "pktinfo" in options:
        index = socket.if_nametoindex(options["pktinfo"])
        if family == socket.AF_INET6:
            control = (socket.IPPROTO_IPV6, 50, struct.pack("16sI", b"\0" * 16, index))
        else:
            control = (socket.IPPROTO_IP, 8, struct.pack("=I8x", index))
        s.sendmsg([payload], [control], 0, (target, port))
        return s.recv(200)
    s.connect((target, port))
    s.send(payload)
    return s.recv(200)

try:
    if kind == "attach":
        attach(target)
        print("attached")
    else:
        reply = reach()
        print("echo" if kind == "ping" else reply.decode())
except OSError as error:
    print(type(error).__name__, error.strerror or error)
