// The entry of the Pulumi CLI. Node 24 runs TypeScript as it is; an older Node needs tsx to, without a build step.
if (!process.features.typescript) (await import('tsx/esm/api')).register();
const { program } = await import('./program.ts');

export default program;
