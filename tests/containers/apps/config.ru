# For Puma: a request for /wait begins to be answered, and ends with a line that its client says then.
run lambda { |env|
  next [200, {}, ["pid #{Process.pid}\n"]] unless env["PATH_INFO"] == "/wait"

  client = env["rack.hijack"].call
  client.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbegun\n")
  client.write(client.gets)
  client.close
  [200, {}, []]
}
