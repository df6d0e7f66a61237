// SPDX-License-Identifier: Apache-2.0
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { DoctorPage } from './DoctorPage.tsx';
import '@fontsource-variable/inter/wght.css';
import '../styles/tokens.css';
import '../styles/base.css';
import '../styles/doctor.css';

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <DoctorPage />
  </StrictMode>,
);
