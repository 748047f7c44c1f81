import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:net';

/**
 * Keeps two `up` or `down` of one cluster apart. An abstract socket: the kernel drops it with the process, however it
 * ends, so a killed command leaves no lock behind. Throws when another command holds it.
 */
export function takeLock(state: string): Promise<{ release: () => void }> {
  const name = `\0somagent-${createHash('sha256').update(state).digest('hex').slice(0, 16)}`;
  return new Promise((resolve, reject) => {
    const server: Server = createServer((socket) => socket.destroy());
    server.on('error', () =>
      reject(
        new Error(
          `another command is starting or stopping the cluster in ${state}; wait until it ends, then try again`,
        ),
      ),
    );
    server.listen(name, () => {
      server.unref();
      resolve({ release: () => server.close() });
    });
  });
}
