// What each peer does with its WebSocket, the same in Node and in a page: subscribes, receives
// 200 events, and resolves with what it saw. It is sent to the browser as text, so it refers to
// nothing outside itself.

export function collect(WebSocket, url) {
  return new Promise((resolve, reject) => {
    const wanted = 200;
    const seqs = [];
    const channels = new Set();
    const types = [];
    const socket = new WebSocket(url);
    socket.onopen = () =>
      socket.send(JSON.stringify({ type: "subscribe", channels: ["odin.token.>"] }));
    socket.onerror = (event) => reject(new Error(`the socket failed: ${event.message ?? ""}`));
    socket.onclose = (event) => reject(new Error(`closed with ${event.code} ${event.reason}`));
    socket.onmessage = (event) => {
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        reject(new Error(`not JSON: ${event.data}`));
        return;
      }
      if (message.seq === undefined) {
        types.push(message.type);
        return;
      }
      seqs.push(message.seq);
      channels.add(message.channel);
      if (seqs.length === wanted) {
        const extensions = socket.extensions;
        socket.onmessage = null;
        socket.onclose = (event) =>
          resolve({
            extensions,
            answers: types,
            seqs,
            channels: [...channels],
            close_code: event.code,
          });
        socket.close(1000, "done");
      }
    };
  });
}
