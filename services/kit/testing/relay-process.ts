/**
 * A service that relays its outbox, to be killed by a test at a chosen moment: HANG is `before` (committed, not yet
 * sent) or `after` (sent and acknowledged, not yet deleted). It says so on standard output and goes no further.
 */
import { z } from 'zod';
import { createLogger, KafkaProducer, kafkaVariables, OutboxRelay, postgresVariables, readConfig } from '../index.ts';

const config = readConfig(z.object({ ...postgresVariables, ...kafkaVariables, HANG: z.enum(['before', 'after']) }));
const log = createLogger({ service: 'relay', level: 'silent' });
const producer = new KafkaProducer(config, { clientId: 'relay' });

const hang = (): Promise<never> => {
  console.log(config.HANG);
  return new Promise(() => setInterval(() => {}, 60_000));
};

new OutboxRelay({
  database: config,
  log,
  sink: {
    async send(messages) {
      if (config.HANG === 'before') return hang();
      await producer.send(messages);
      return hang();
    },
  },
}).start();
